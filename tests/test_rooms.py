"""Each file does one thing, and what it needs lies one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("femo_core", "nodes", "benchmarks")
LONGEST = 250  # lines
MOST_FILES = 16


def modules() -> dict[str, Path]:
    """Every file by its dotted name; a package's is that of its folder."""
    found = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in found}


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """The pack's modules that this one's import statements name, wherever they stand."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *filter(None, (node.module or "").split("."))])
        if node.level or base.split(".")[0] in ("femo_core", "benchmarks"):
            base = base.replace("benchmarks.pack", "nodes")
            found |= {dotted if (dotted := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return found - {name}


IMPORTS = {name: imports_of(name) for name in MODULES}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """One that there is: names that need each other, the first one last again."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name):], name]
        for other in sorted(imports.get(name, set()) - done):
            if found := walk(other, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in imports if (found := walk(name, []))), [])


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_are_those_that_are_meant():
    assert "nodes.sites.base" in IMPORTS["nodes.sites.hidden"]
    assert "femo_core.kernels.fused" in IMPORTS["femo_core.kernels"]  # within a function
    assert {"benchmarks.sampling.subjects", "nodes.sites", "femo_core"} < IMPORTS["benchmarks.sampling.forecasting"]
    assert all(other in MODULES for found in IMPORTS.values() for other in found)


def test_no_file_needs_one_that_needs_it():
    assert circle(IMPORTS) == []


def test_no_folder_needs_one_that_needs_it():
    """Of those within the three. What lies flat in these is not one thing."""
    def room(name: str) -> str:
        return ".".join(MODULES[name].parent.relative_to(ROOT).parts)

    rooms: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        rooms.setdefault(room(name), set()).update(map(room, found))
    assert circle({name: found - {name, *FOLDERS} for name, found in rooms.items() if name not in FOLDERS}) == []


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("benchmarks")])
def test_a_file_is_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_a_folder_holds_few_files():
    for folder in {path.parent for path in MODULES.values()}:
        assert len([*folder.glob("*.py")]) <= MOST_FILES, folder
