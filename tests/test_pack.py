"""What the repository promises about itself."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / "example_workflows" / "api").glob("*.json"))
FOR_THE_BROWSER = sorted((ROOT / "example_workflows").glob("*.json"))


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
    allowed = {"__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "functools", "hashlib",
               "inspect", "itertools", "json", "logging", "math", "os", "pathlib", "statistics", "sys", "time", "torch",
               "types", "typing", "uuid"}
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
        "DiTClassLabel", "DiTLoader", "FeMoAuto", "FeMoCache", "FeMoCalibrate", "FeMoReport", "ImageFidelity",
        "TaylorSeerCache"]
    for node_id in ids:
        english, chinese = DOCS / f"{node_id}.md", DOCS / node_id / "zh.md"
        assert pictures_of(english) == pictures_of(chinese)
        assert all((DOCS / picture).is_file() for picture in pictures_of(english))


DOCS = ROOT / "web" / "docs"


def pictures_of(page: Path) -> list[str]:
    return re.findall(r"!\[.+?\]\((.+?)\)", page.read_text())


def node_files() -> dict[str, str]:
    """The file of each node in nodes/, by its id."""
    found = ((re.search(r'node_id="(\w+)"', path.read_text(encoding="utf-8")), path.name)
             for path in sorted((ROOT / "nodes").glob("*.py")))
    return {node_id[1]: name for node_id, name in found if node_id}


NO_INPUTS = {"accelerated_model", "advanced", "mostly_advanced"}  # of what nodes/inputs.py has for them


def nodes() -> dict[str, dict[str, list[str]]]:
    """Ids of the nodes, and the names of their inputs and outputs, as their files say."""
    found = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        source = path.read_text()
        if node_id := re.search(r'node_id="(\w+)"', source):
            own = re.findall(r'Input\(\s*"(\w+)"', source)
            found[node_id[1]] = {
                "inputs": sorted({*own, *re.findall(r"inputs\.(\w+)\(", source)} - NO_INPUTS),
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


@pytest.mark.parametrize("path", FOR_THE_BROWSER, ids=lambda p: p.name)
def test_a_workflow_holds_no_null_but_for_a_link_that_is_not_there(path):
    """Older front ends call any other one invalid."""
    empty: set[str] = set()

    def look(entries: list[tuple[str, object]]) -> dict[str, object]:
        empty.update(name for name, value in entries if value is None)
        return dict(entries)

    json.loads(path.read_text(), object_pairs_hook=look)
    assert empty <= {"link", "links"}


@pytest.mark.parametrize("path", FOR_THE_BROWSER, ids=lambda p: p.name)
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
def test_help_pages_and_the_list_of_nodes_name_every_input(node_id):
    for page in (DOCS / f"{node_id}.md", DOCS / node_id / "zh.md", ROOT / "docs" / "nodes.md"):
        for name in {*nodes()[node_id]["inputs"], *nodes()[node_id]["outputs"]} - {"model"}:
            assert name in page.read_text(), page


def part_of_nodes(name: str) -> ModuleType:
    """A module of nodes/ that needs no ComfyUI, without nodes/__init__.py, which does."""
    for package, folder in (("checkout", ROOT), ("checkout.nodes", ROOT / "nodes")):
        if package not in sys.modules:
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(folder)]
    return importlib.import_module(f"checkout.nodes.{name}")


def shown(setting: Any) -> tuple[str, str]:
    """A default and its range, as the pages write them."""
    def number(value: float) -> str:
        return f"{value:g}".replace("-", "−")

    if hasattr(setting, "options"):
        return setting.default, ", ".join(setting.options)
    return number(setting.default), f"{number(setting.low)} … {number(setting.high)}"


def settings_on(page: Path) -> dict[str, tuple[str, str]]:
    """Default and range by input, of the table of name, symbol (on some pages), default, range, meaning."""
    text = page.read_text(encoding="utf-8")
    table = re.search(r"^\| (?:input|输入) \| .+\n\| ---.+\n((?:\|.+\n)+)", text, re.MULTILINE)
    found: dict[str, tuple[str, str]] = {}
    for row in table[1].splitlines():
        name, *_, default, limits, _ = (cell.strip() for cell in row.strip("|").split("|"))
        names = re.match("[a-z_, ]+", name)[0].strip().split(", ")
        found |= dict(zip(names, ((each, limits) for each in default.split(", ")), strict=True))
    return found


@pytest.mark.parametrize("page", [
    "docs/nodes.md", *(f"web/docs/{node}{language}.md"
                       for node in ("FeMoCache", "TaylorSeerCache") for language in ("", "/zh"))])
def test_pages_say_the_defaults_and_ranges_that_the_inputs_have(page):
    settings = part_of_nodes("settings")
    known = settings.SHARED if "TaylorSeer" in page else settings.SETTINGS
    found = settings_on(ROOT / page)
    assert {name: found[name] for name in known} == {name: shown(setting) for name, setting in known.items()}
    assert found.keys() - known.keys() == {"enabled", "calibration"}  # a switch, and what files there are


@pytest.mark.parametrize("language", ["", "/zh"])
def test_the_pages_of_auto_do_so_too(language):
    settings = part_of_nodes("settings")
    known = settings.AUTO | {name: settings.SHARED[name] for name in ("site", "cache_device")}
    found = settings_on(DOCS / f"FeMoAuto{language}.md")
    assert found == {name: shown(setting) for name, setting in known.items()} | {"enabled": found["enabled"]}


def test_pages_and_tooltips_of_auto_name_the_aims_that_the_code_has():
    qualities = importlib.import_module("femo_core").QUALITIES
    changes, speedups = ([f"{value:g}" for value in values] for values in zip(
        *((100 * quality.change, quality.speedup) for quality in qualities.values()), strict=True))
    assert "high {} %, balanced {} %, fast {} %".format(*changes) in tooltips("auto.py")["quality"]
    judged = auto_as_judged()
    for name, change, speedup in zip(qualities, changes, speedups, strict=True):
        took, changed = judged[f"{name}, {change}%"]
        row = f"| {name} | {change} % | {changed.replace('%', ' %')} | {took} | {speedup} |"
        for page in (DOCS / "FeMoAuto.md", DOCS / "FeMoAuto" / "zh.md"):
            assert row in page.read_text(encoding="utf-8"), page


def auto_as_judged() -> dict[str, list[str]]:
    """Speed-up and change by what was asked for, learned in the run's own regime, as benchmarks/results/auto.md has
    it of the model kept for judging."""
    known = (ROOT / "benchmarks" / "results" / "auto.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in known.splitlines()]
    return {row[1]: row[4:6] for row in rows if row[0] == "scenes" and row[2] == "in the same regime"}


def test_the_memory_that_pages_name_is_what_it_comes_to():
    """Of what goes into the last layer, 16 bits a number, as many tensors as FeMo Auto's predictor keeps."""
    kept = importlib.import_module("femo_core").ScaledTaylor().buffer_count
    sizes = {"SDXL | 1024 × 1024": 128 * 128 * 320, "FLUX | 1024 × 1024": 64 * 64 * 3072,  # tokens × width
             "Wan 2.2 14B | 1280 × 720, 81 frames": 21 * 45 * 80 * 5120}
    page, readme = ((DOCS / "FeMoAuto.md"), ROOT / "README.md")
    words = {name: f"{2 * kept * size / 1e6:.0f} MB" if size < 1e8 else f"{2 * kept * size / 1e9:.1f} GB"
             for name, size in sizes.items()}
    assert all(f"| {name} | {size} |" in page.read_text(encoding="utf-8") for name, size in words.items())
    text = " ".join(readme.read_text(encoding="utf-8").split())
    assert "{1} for FLUX at 1024 × 1024, but {2} for a long video".format(*words.values()) in text


def test_defaults_and_ranges_stand_in_one_place():
    settings = part_of_nodes("settings")
    known = settings.SETTINGS | settings.AUTO
    for path in (ROOT / "nodes" / name for name in ("inputs.py", "femo.py", "taylorseer.py", "auto.py")):
        source = path.read_text(encoding="utf-8")
        for name in re.findall(r'io\.\w+\.Input\(\s*"(\w+)"', source):
            own = re.search(rf'Input\(\s*"{name}",([^"]*)', source)[1]
            assert name not in known or not re.search("default|min|max|options", own), name


def test_a_default_is_within_its_range_and_so_is_what_a_preset_gives():
    settings, presets = part_of_nodes("settings"), part_of_nodes("presets")
    fits = {name: (lambda value, known=known: value in known.options if hasattr(known, "options")
                   else known.low <= value <= known.high) for name, known in settings.SETTINGS.items()}
    assert all(fits[name](setting.default) for name, setting in settings.SETTINGS.items())
    for kind, known in ((presets.FEMO, settings.SETTINGS), (presets.TAYLORSEER, settings.SHARED)):
        for name, values in kind.items():
            assert values.keys() <= known.keys(), name
            assert all(fits[key](value) for key, value in values.items()), name


def tooltips(*files: str) -> dict[str, str]:
    """In English, by input or by the number of the output, as those files of nodes/ have them."""
    found, outputs = {}, 0
    for file in files:
        for node in ast.walk(ast.parse((ROOT / "nodes" / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".Input", ".Output")):
                text = next((part.value for part in node.keywords if part.arg == "tooltip"), None)
                if ast.unparse(node.func).endswith(".Input"):
                    found[node.args[0].value] = ast.literal_eval(text)
                else:
                    found[str(outputs)], outputs = ast.literal_eval(text), outputs + 1
    return found


def numbers_in(text: str) -> set[str]:
    """Those in digits; where a language has a word for one, that is not it."""
    return set(re.findall(r"(?<![\w.])[−-]?\d+(?:\.\d+)?", text))


@pytest.mark.parametrize("locale", ["zh"])
def test_tooltips_name_the_same_numbers_and_choices_in_every_language(locale):
    settings = part_of_nodes("settings")
    settings = settings.SETTINGS | settings.AUTO
    translated = json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    for node, file in node_files().items():
        own, shared = tooltips(file), tooltips("inputs.py")
        texts = translated[node]["inputs"] | translated[node]["outputs"]
        for name, text in texts.items():
            english = own.get(name) or shared[name]
            assert numbers_in(text["tooltip"]) == numbers_in(english), (node, name)
            for option in getattr(settings.get(name), "options", ()):
                assert option in text["tooltip"] or option not in english, (node, name)


@pytest.mark.parametrize("node_id", nodes())
def test_help_pages_name_the_same_numbers_in_every_language(node_id):
    english, chinese = ((DOCS / page).read_text(encoding="utf-8") for page in (f"{node_id}.md", f"{node_id}/zh.md"))
    assert numbers_in(chinese) == numbers_in(english)


def constant(path: str, name: str) -> str:
    """Of a module, which may need ComfyUI, as pages write it."""
    value = re.search(rf"^{name} = ([\d.]+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    return f"{float(value[1]):g}"


def test_pages_and_tooltips_name_the_bounds_that_the_code_has():
    window, equal = constant("nodes/image_fidelity.py", "WINDOW"), constant("nodes/image_fidelity.py", "EQUAL")
    page = (DOCS / "ImageFidelity.md").read_text(encoding="utf-8")
    assert f"windows of {window} pixels" in page
    assert f"{equal} where images are equal" in page
    assert f"{equal} where images are equal" in tooltips("image_fidelity.py")["0"]
    longest = constant("femo_core/profiles/profile.py", "LONGEST_RUN")
    assert f"Up to {longest} steps are recorded" in (DOCS / "FeMoCalibrate.md").read_text(encoding="utf-8")
    assert f"more than {longest} steps take too long" in (DOCS / "FeMoAuto.md").read_text(encoding="utf-8")


def test_the_papers_values_are_the_presets():
    """Those that tooltips and help pages name."""
    papers, known = part_of_nodes("presets").PAPERS, tooltips("inputs.py", "femo.py")
    flux, dit = papers["FeMo, FLUX, O=1"], papers["FeMo, DiT, O=1"]
    adapted = papers["Adapted-FeMo, FLUX, O=1"].predictor
    assert f"{flux.predictor.beta:g} for FLUX, {dit.predictor.beta:g} for DiT".replace("-", "−") in known["beta"]
    assert f"{adapted.beta_min:g} for FLUX" in known["beta_min"]
    assert f"{adapted.beta_max:g} for FLUX" in known["beta_max"]
    assert f"{flux.warmup_steps} for FLUX and {dit.warmup_steps} for DiT" in known["warmup_steps"]
    assert f"The papers use {flux.cooldown_steps}" in known["cooldown_steps"]


def test_pages_name_the_presets_and_their_values():
    presets = part_of_nodes("presets")
    flux, dit, papers = presets.MEASURED["FLUX"], presets.MEASURED["DiT"], presets.PAPERS["FeMo, FLUX, O=1"].predictor
    for page in (DOCS / "FeMoCache.md", DOCS / "FeMoCache" / "zh.md"):
        text = page.read_text(encoding="utf-8")
        for level in presets.LEVELS:
            assert level in text, page
        assert str(papers.beta) in text
    english = " ".join((DOCS / "FeMoCache.md").read_text(encoding="utf-8").split())
    assert dit.predictor == flux.predictor
    assert f"for DiT set `warmup_steps` {dit.warmup_steps}." in english
    measured = " ".join((ROOT / "docs" / "measured.md").read_text(encoding="utf-8").split())
    assert (f"O={flux.predictor.max_order}, β = {flux.predictor.beta}, momentum started at the "
            f"{flux.predictor.momentum_start}, cool-down {flux.cooldown_steps}, site hidden, not adaptive: the nodes' "
            f"defaults. For DiT the same with `warmup_steps` {dit.warmup_steps}.") in measured


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


def documents():
    """Those that are read in the repository; help pages are read in the front end."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


def test_every_link_of_the_docs_leads_somewhere():
    """To a file that is there, and to a heading in it."""
    links = [(path, *link.partition("#")[::2]) for path in [*documents(), *DOCS.rglob("*.md")]
             for link in re.findall(r"\]\(([^)\s]+)", path.read_text(encoding="utf-8")) if not link.startswith("http")]
    assert {path.name for path, _, _ in links} > {
        "README.md", "CONTRIBUTING.md", "engines.md", "regimes.md", "nodes.md", "measured.md", "FeMoCache.md"}
    broken = [(str(path), link) for path, link, _ in links if not place(path, link).exists()]
    broken += [(str(path), part) for path, link, part in links if part and part not in headings(place(path, link))]
    assert broken == []


def place(path: Path, link: str) -> Path:
    """That a link leads to; a help page finds its pictures where the English ones do."""
    folder = DOCS if path.is_relative_to(DOCS) and link.startswith("pictures/") else path.parent
    return folder / link if link else path


def headings(path: Path) -> set[str]:
    """As links name them: small, without marks, with hyphens for spaces."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else []
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_the_readme_is_short_and_shows_the_node_first():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text) <= 10_000
    assert text.index("**FeMo Auto**") < text.index("*FeMo Cache*")


REGIMES = {  # rows of pages, and of regimes.md
    "the papers' schedule": "papers' schedule, best order", "EasyCache": "EasyCache", "SeaCache": "SeaCache",
    "MeanCache": "MeanCache", "Spectrum": "Spectrum", "FeMo Cache as it comes": "FeMo Cache, interval 0",
    "FeMo Auto with learn off": "Ramp", "FeMo Auto, learned in 20 steps": "tuned, learned at 20 steps",
    "FeMo Auto, learned in 50 steps": "tuned, learned at 50 steps",
    "FeMo Auto, learned at the run's own": "tuned", "the same, learned thoroughly": "tuned, tried out"}


@pytest.mark.parametrize(("page", "rows"), [("README.md", 6), ("docs/measured.md", 11)])
def test_pages_say_what_the_regimes_came_to(page, rows):
    """Mean and worst over plain steps, on the model kept for judging; the README in percent."""
    known = (ROOT / "benchmarks" / "results" / "regimes.md").read_text(encoding="utf-8")
    known = known[known.index("## Over as many plain steps"):known.index("## Over the best rival")]
    text = (ROOT / page).read_text(encoding="utf-8")
    table = re.search("<!-- regimes -->\n(.*?)<!-- end -->", text, re.S)[1]
    checked = 0
    for label, *cells in (map(str.strip, line.strip("|").split("|")) for line in table.splitlines()):
        if name := next((name for start, name in REGIMES.items() if label.startswith(start)), ""):
            row = re.search(rf"^\| {re.escape(name)} \| ([\d.]+) / ([\d.]+) \| ([\d.]+)", known, re.MULTILINE)
            parts = [float(value) for value in row.groups()]
            wanted = [f"{100 * part:.0f} %" if "%" in cells[0] else f"{part:.2f}" for part in parts]
            assert cells == wanted[:len(cells)], label
            checked += 1
    assert checked == rows


def test_pages_say_how_auto_keeps_to_what_is_asked():
    """On the model kept for judging, as benchmarks/results/auto.md has it."""
    def rows(text: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]

    known = rows((ROOT / "benchmarks" / "results" / "auto.md").read_text(encoding="utf-8"))
    judged = [[row[i] for i in (1, 2, 4, 5, 6, 8)] for row in known if row[0] == "scenes"]
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert rows(re.search("<!-- auto -->\n(.*?)<!-- end -->", page, re.S)[1])[2:] == judged
    speedup, change = auto_as_judged()["balanced, 5%"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"*balanced*, computed {speedup} times fewer steps" in readme
    assert f"by {change.replace('%', ' %')}, where 5 % was asked for" in readme


def test_what_pages_show_for_the_api_is_what_the_node_takes():
    """FeMo Auto in API format: inputs and choices that there are."""
    block = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8"), re.S)[1]
    (node,) = json.loads(block).values()
    known = part_of_nodes("settings").AUTO
    assert node["class_type"] == "FeMoAuto"
    assert node["inputs"].keys() == {"model", "enabled", *known}
    assert {name: node["inputs"][name] for name in known} == {name: one.default for name, one in known.items()}


def test_every_file_that_a_doc_or_the_makefile_names_is_there():
    """Of benchmarks/: by its path, or by its dotted name behind -m."""
    for path in (ROOT / "Makefile", *documents()):
        text = path.read_text(encoding="utf-8")
        named = [*re.findall(r"(?<!/)\bbenchmarks/[\w/]+\.py\b", text),
                 *(name.replace(".", "/") + ".py" for name in re.findall(r"-m (benchmarks\.[\w.]*\w)", text))]
        assert [name for name in named if not (ROOT / name).exists()] == [], path
