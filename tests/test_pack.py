"""What the repository promises about itself."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
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


@pytest.mark.parametrize("path", modules("femo_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_torch_and_the_standard_library_only(path):
    """An integration also its host, which is in its path, and fused.py Triton, without which nothing imports it."""
    allowed = {"__future__", "abc", "collections", "contextlib", "dataclasses", "functools", "inspect", "itertools",
               "logging", "math", "os", "statistics", "sys", "time", "torch", "typing"}
    _, _, integration = path.parent.as_posix().partition("integrations/")
    assert imported(path) <= allowed | {integration} | ({"triton"} if path.name == "fused.py" else set())


def test_the_core_imports_no_integration():
    for path in modules("femo_core"):
        assert "integrations" in path.parts or "integrations" not in path.read_text()


@pytest.mark.parametrize("path", modules("nodes"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_nodes_import_each_other_relatively(path):
    """ComfyUI owns the name `nodes`, and femo_core under two names would be two sets of classes."""
    assert not imported(path) & {"nodes", "femo_core"}


def test_every_node_has_a_help_page():
    ids = re.findall(r'node_id="(\w+)"', "".join(path.read_text() for path in modules("nodes")))
    assert sorted(ids) == [
        "DiTClassLabel", "DiTLoader", "FeMoCache", "FeMoCalibrate", "FeMoReport", "ImageFidelity", "TaylorSeerCache"]
    for node_id in ids:
        english, chinese = DOCS / f"{node_id}.md", DOCS / node_id / "zh.md"
        assert pictures_of(english) == pictures_of(chinese)
        assert all((DOCS / picture).is_file() for picture in pictures_of(english))


DOCS = ROOT / "web" / "docs"


def pictures_of(page: Path) -> list[str]:
    return re.findall(r"!\[.+?\]\((.+?)\)", page.read_text())


def nodes() -> dict[str, dict[str, list[str]]]:
    """Ids of the nodes, and the names of their inputs and outputs, as their files say."""
    found = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        source = path.read_text()
        if node_id := re.search(r'node_id="(\w+)"', source):
            own = re.findall(r'Input\(\s*"(\w+)"', source)
            found[node_id[1]] = {
                "inputs": sorted({*own, *re.findall(r"inputs\.(\w+)\(", source)} - {"accelerated_model"}),
                "outputs": re.findall(r'Output\(\s*display_name="(\w+)"', source)}
    return found


@pytest.mark.parametrize("locale", ["zh"])
def test_every_name_and_tooltip_is_translated(locale):
    folder = ROOT / "locales" / locale
    translated = json.loads((folder / "nodeDefs.json").read_text())
    assert translated.keys() == nodes().keys()
    for node_id, node in nodes().items():
        texts = translated[node_id]
        assert texts["display_name"]
        assert texts["description"]
        assert sorted(texts["inputs"]) == node["inputs"]
        assert all(text["name"] and text["tooltip"] for text in texts["inputs"].values())
        assert all(text["name"] and text["tooltip"] for text in texts["outputs"].values())
        assert len(texts["outputs"]) == max(1, len(node["outputs"]))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_are_api_format(path):
    for node in json.loads(path.read_text()).values():
        assert {"class_type", "inputs"} <= node.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "example_workflows").glob("*.json")), ids=lambda p: p.name)
def test_a_workflow_and_its_api_form_say_the_same(path):
    """Links and widgets of the one for the browser are those of the one for the API."""
    graph, prompt = json.loads(path.read_text()), json.loads((path.parent / "api" / path.name).read_text())
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    assert {str(node["id"]): node["type"] for node in graph["nodes"]} == {
        node_id: node["class_type"] for node_id, node in prompt.items()}
    for node in graph["nodes"]:
        inputs = prompt[str(node["id"])]["inputs"]
        linked = {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry.get("link") is not None}
        assert linked == {name: value for name, value in inputs.items() if isinstance(value, list)}
        values = Counter(value for value in inputs.values() if not isinstance(value, list))
        assert not values - Counter(node.get("widgets_values", []))  # which has the browser's own among them


@pytest.mark.parametrize("node_id", nodes())
def test_help_pages_and_readme_name_every_input(node_id):
    for page in (DOCS / f"{node_id}.md", DOCS / node_id / "zh.md", ROOT / "README.md"):
        for name in {*nodes()[node_id]["inputs"], *nodes()[node_id]["outputs"]} - {"model"}:
            assert name in page.read_text(), page


@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_the_pack_compiles_on_every_supported_python(minor):
    """With that interpreter where there is one; its grammar otherwise (3.10's also through ruff's target)."""
    sources = [ROOT / "__init__.py", *modules("femo_core"), *modules("nodes")]
    interpreter = shutil.which(f"python3.{minor}")
    code = "import sys\nfor path in sys.argv[1:]: compile(open(path, encoding='utf-8').read(), path, 'exec')"
    if interpreter and subprocess.run([interpreter, "--version"], capture_output=True).returncode == 0:
        subprocess.run([interpreter, "-W", "error", "-c", code, *map(str, sources)], check=True)
    for source in sources:
        ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, minor))


def test_pip_installs_the_core_alone(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--quiet", "--no-deps", "--no-build-isolation",
             "--wheel-dir", str(tmp_path)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"femo_core"}
    assert {str(path.relative_to(ROOT)) for path in modules("femo_core")} <= set(names)
    assert "femo_core/py.typed" in names


def test_nothing_here_depends_on_where_it_was_made():
    """No absolute path of a machine in any tracked text file."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.:/])/(root|home|work|Users)/\w")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".json", ".toml", ".txt", ".js", ""} and path.is_file():
            assert not pattern.search(path.read_text(encoding="utf-8")), name


def test_every_link_of_the_docs_leads_somewhere():
    for path in (ROOT / "README.md", ROOT / "docs" / "engines.md", ROOT / "benchmarks" / "checkpoints" / "README.md"):
        text = path.read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
        assert links
        for link in links:
            assert (path.parent / link).exists(), link
