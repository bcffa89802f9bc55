"""Each file does one thing, and what it needs lies one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("femo_core", "nodes")
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
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            base = ".".join(filter(None, base))
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
    assert all(other in MODULES for found in IMPORTS.values() for other in found)


def test_no_file_needs_one_that_needs_it():
    assert circle(IMPORTS) == []


def test_no_folder_needs_one_that_needs_it():
    """Of those within nodes/ and femo_core/. What lies flat in these two is not one thing."""
    def room(name: str) -> str:
        return ".".join(MODULES[name].parent.relative_to(ROOT).parts)

    rooms: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        rooms.setdefault(room(name), set()).update(map(room, found))
    assert circle({name: found - {name, *FOLDERS} for name, found in rooms.items() if name not in FOLDERS}) == []


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_a_folder_holds_few_files():
    for folder in {path.parent for path in MODULES.values()}:
        assert len([*folder.glob("*.py")]) <= MOST_FILES, folder
