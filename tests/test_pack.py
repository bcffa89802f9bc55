"""What the repository promises about itself."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / "example_workflows" / "api").glob("*.json"))


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of absolute imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", modules("femo_core"), ids=lambda p: p.name)
def test_the_core_imports_torch_and_the_standard_library_only(path):
    allowed = {"__future__", "abc", "collections", "contextlib", "dataclasses", "math", "torch", "typing"}
    assert imported(path) <= allowed


@pytest.mark.parametrize("path", modules("nodes"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_nodes_import_each_other_relatively(path):
    """ComfyUI owns the name `nodes`, and femo_core under two names would be two sets of classes."""
    assert not imported(path) & {"nodes", "femo_core"}


def test_every_node_has_a_help_page():
    ids = re.findall(r'node_id="(\w+)"', "".join(path.read_text() for path in modules("nodes")))
    assert sorted(ids) == ["FeMoCache", "TaylorSeerCache"]
    for node_id in ids:
        assert (ROOT / "web" / "docs" / f"{node_id}.md").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_are_api_format(path):
    for node in json.loads(path.read_text()).values():
        assert {"class_type", "inputs"} <= node.keys()


@pytest.mark.parametrize("name", ["FeMoCache", "TaylorSeerCache"])
def test_help_pages_and_readme_name_every_input(name):
    source = (ROOT / "nodes" / f"{name.removesuffix('Cache').lower()}.py").read_text()
    own = re.findall(r'Input\(\s*"(\w+)"', source)
    shared = re.findall(r"inputs\.(\w+)\(\)", source)
    for text in ((ROOT / "web" / "docs" / f"{name}.md").read_text(), (ROOT / "README.md").read_text()):
        for input_name in {*own, *shared} - {"model", "accelerated_model"}:
            assert input_name in text
