"""What users see, in a real browser: workflows, the report on the node, presets, greyed widgets.

Where there is no Chromium these are skipped. Pictures of what was seen are in out/browser.
"""

from __future__ import annotations

import json
import shutil
import uuid

import pytest
import requests
from browser import CHROMIUM, open_browser, open_page
from comfy_host import HOST
from hosts import NO_CHROMIUM, server_environment, version

from benchmarks.engines.comfy_server import ROOT, comfy_server

if CHROMIUM is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

WORKFLOWS = ROOT / "example_workflows"
OLD = ROOT / "tests" / "host" / "old_workflows"
OUT = ROOT / "out" / "browser" / version(HOST)
# Nodes of theirs that older ComfyUIs do not have.
NEEDS = {"flux2_dev_femo": (0, 8), "ltx23_video_femo": (0, 29), "minimax_h3_femo": (0, 33)}
VERSION = tuple(map(int, version(HOST).split(".")))
RENDERERS = ["canvas", "vue"] if VERSION >= (0, 29) else ["canvas"]
TABS = {"canvas": {"VueNodes_Enabled": False}, "vue": {"VueNodes_Enabled": True},
        "light zh": {"VueNodes_Enabled": False, "ColorPalette": "light", "Locale": "zh"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfy") / "base"
    with comfy_server(HOST, folder, "femo", server_environment(HOST)) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def pytest_generate_tests(metafunc):
    """`any_page` is either way that the front end draws nodes, `other_page` either theme and language."""
    if "tab" in metafunc.fixturenames:
        several = {"any_page": RENDERERS, "other_page": ["canvas", "light zh"]}
        names = next((names for page, names in several.items() if page in metafunc.fixturenames), ["canvas"])
        metafunc.parametrize("tab", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def tab(request, browser, server):
    """One at a time, as an idle one costs too, and for all tests that ask for it: opening it takes as long as most."""
    with open_page(browser, server, **TABS[request.param]) as page:
        page.name, page.vue = request.param, request.param == "vue"
        yield page


@pytest.fixture
def page(tab):
    tab.errors.clear()
    yield tab
    assert tab.errors == []
    assert tab.alerts() == []


@pytest.fixture
def any_page(page):
    return page


@pytest.fixture
def other_page(page):
    page.load(ui("dit_cache"))
    return page


def api(name):
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def ui(name, folder=WORKFLOWS):
    """Under an id of its own, as reports are kept by it."""
    return json.loads((folder / f"{name}.json").read_text()) | {"id": str(uuid.uuid4())}


def inputs_of(prompt):
    return {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}


def with_steps(workflow, steps, seed=1, pictures=1):
    """A shorter run of it, of so many pictures."""
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][:3] = [seed, "fixed", steps]
        if node["type"] == "EmptyChromaRadianceLatentImage":
            node["widgets_values"][2] = pictures
        if node["type"] == "DiTClassLabel":
            node["widgets_values"][1] = ", ".join(node["widgets_values"][1].split(", ")[:pictures])
    return workflow


def widgets(page, node_type, field="value"):
    return page.run("([type, field]) => Object.fromEntries(app.graph.nodes.find(n => n.type === type).widgets"
                    ".map(w => [w.name, w[field]]))", [node_type, field])


def set_widget(page, node_type, name, value):
    """As a user does it: the value, then what the front end calls after a change."""
    page.run("""([type, name, value]) => {
        const node = app.graph.nodes.find(n => n.type === type), widget = node.widgets.find(w => w.name === name)
        widget.value = value
        widget.callback?.(value, app.canvas, node)
    }""", [node_type, name, value])


def marks(page, kind):
    return page.run("kind => document.querySelectorAll(`.femo-report .femo-${kind}`).length", kind)


def choose_in_menu(page, node_type, words):
    """As a user does it: the right button on the node's title, then the entry."""
    page.fit()
    place = page.run("""type => {
        const node = app.graph.nodes.find(n => n.type === type), { ds, canvas } = app.canvas
        const { left, top } = canvas.getBoundingClientRect()
        return [left + (node.pos[0] + 60 + ds.offset[0]) * ds.scale, top + (node.pos[1] - 14 + ds.offset[1]) * ds.scale]
    }""", node_type)
    page.page.mouse.click(*place, button="right")
    page.page.get_by_text(words, exact=True).click()
    page.page.wait_for_function("!!document.querySelector('.femo-said')", timeout=10_000)


@pytest.fixture
def profiles(server):
    """The folder of what FeMo Auto has learned: nothing yet."""
    folder = server.log.parent / "user" / "default" / "femo_profiles"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.mark.parametrize("name", sorted(path.stem for path in WORKFLOWS.glob("*.json")))
def test_a_workflow_loads_as_saved(page, name):
    """No unknown node, no error, and what is queued is what the API's version of it holds."""
    if NEEDS.get(name, (0,)) > VERSION:
        pytest.skip("this ComfyUI does not have its nodes")
    page.load(ui(name))
    assert page.missing() == []
    expected, found = inputs_of(api(name)), inputs_of(page.prompt())
    assert found.keys() == expected.keys()
    for key, (kind, values) in expected.items():
        assert found[key][0] == kind
        assert {k: found[key][1].get(k) for k in values} == values
    assert (WORKFLOWS / f"{name}.jpg").exists()


def test_the_workflows_are_listed_as_templates(server):
    listed = server.get("/workflow_templates").json()
    assert set(listed["femo"]) == {path.stem for path in WORKFLOWS.glob("*.json")}


def test_an_old_workflow_keeps_its_values(page):
    """From before max_consecutive, coordinate, cache_device, presets and the report were there."""
    page.load(ui("dit_femo", OLD))
    values = widgets(page, "FeMoCache")
    assert {key: values[key] for key in (
        "enabled", "interval", "max_order", "beta", "gamma", "beta_min", "beta_max", "warmup_steps", "cooldown_steps",
        "site", "momentum_start", "max_consecutive", "coordinate", "cache_device")} == {
        "enabled": True, "interval": 4, "max_order": 1, "beta": 0.1, "gamma": 0, "beta_min": 0.2, "beta_max": 0.45,
        "warmup_steps": 2, "cooldown_steps": 1, "site": "hidden", "momentum_start": "feature", "max_consecutive": 0,
        "coordinate": "steps", "cache_device": "gpu"}
    kind, inputs = inputs_of(page.prompt())["2"]
    newer = {"calibration": "none", "budget": 0, "tolerance": 0, "adaptation": "sign"}  # than the one for the API, too
    assert {name: inputs.pop(name) for name in newer} == newer
    assert (kind, inputs) == inputs_of(api("dit_cache"))["2"]


def test_a_run_shows_its_steps_on_the_node(any_page):
    page = any_page
    page.load(with_steps(ui("dit_compare"), 20, seed=10 + page.vue))
    assert "appears here" in page.run("() => document.querySelector('.femo-report').innerText")
    entry = page.queue()
    assert entry["status"]["status_str"] == "success"
    full = 2 + len(range(5, 20, 4)) + (19 not in range(5, 20, 4))  # warm-up 2, every 4th, the last
    assert (marks(page, "full"), marks(page, "predicted"), marks(page, "toCome")) == (full, 20 - full, 0)
    assert marks(page, "error") > 2
    said = page.run("() => document.querySelector('.femo-run').innerText")
    assert f"{full} of 20 steps in full" in said
    assert page.run("() => document.querySelector('.femo-run').dataset.done") == "true"
    tooltip = page.run("() => document.querySelector('.femo-full title').textContent")
    assert tooltip == "step 1: computed in full"
    # The report node and the comparison say theirs, on the node and in the history.
    texts = page.run("() => [...document.querySelectorAll('.femo-text')].map(e => e.textContent)")
    assert any(text.startswith(f"{full} full and {20 - full} forecast of 20 steps") for text in texts)
    assert any(text.startswith("image 1: PSNR") for text in texts)
    report = entry["outputs"]["12"]["femo_report"][0]
    assert len(report["full_steps"]) == full
    page.fit()
    page.screenshot(OUT / f"run_{page.name}.png")


def test_a_calibration_is_made_said_and_used(any_page):
    page = any_page
    page.load(with_steps(ui("dit_calibrate"), 20, seed=90 + page.vue))
    set_widget(page, "FeMoCache", "budget", 6)
    assert page.queue()["status"]["status_str"] == "success"
    assert (marks(page, "full"), marks(page, "predicted"), marks(page, "expected")) == (6, 14, 5)
    assert "Expected: " in page.run("() => document.querySelector('.femo-expected title').textContent")
    said = "saved as dit example: 20 steps, runs: 1"
    assert said in widgets(page, "FeMoCalibrate").values()
    assert said in page.run("() => document.body.innerText") or not page.vue
    page.fit()
    page.screenshot(OUT / f"calibrate_{page.name}.png")


def test_a_calibration_of_another_machine_is_kept_and_costs_a_notice(page):
    workflow = api("dit_cache")
    workflow["2"]["inputs"].update(calibration="of another machine", budget=4)
    workflow["6"]["inputs"].update(steps=5, seed=95)
    page.load_api(workflow, "calibrated_elsewhere")
    assert page.prompt()["2"]["inputs"]["calibration"] == "of another machine"
    assert page.queue()["status"]["status_str"] == "success"
    assert "is not used, but the interval" in page.run("() => document.querySelector('.femo-notice').textContent")


def test_the_words_take_the_themes_colours(other_page):
    page = other_page
    page.page.wait_for_function("!!document.querySelector('.femo-report')", timeout=60_000)
    colour = page.run("() => getComputedStyle(document.querySelector('.femo-report')).color")
    brightness = sum(map(int, colour[colour.index("(") + 1:-1].split(",")[:3])) / 3
    assert brightness < 128 if page.name == "light zh" else brightness > 128
    page.fit()
    page.screenshot(OUT / f"theme_{page.name}.png")


def test_nothing_of_the_report_is_saved(any_page):
    page = any_page
    page.load(with_steps(ui("dit_cache"), 4, seed=20 + page.vue))
    before = page.saved()
    page.queue()
    after = page.saved()
    values = {node["id"]: node.get("widgets_values") for node in after["nodes"]}
    assert values == {node["id"]: node.get("widgets_values") for node in before["nodes"]}
    assert len(values[2]) == 18  # the node's own inputs
    assert "femo_" not in json.dumps(after)


def test_presets_fill_the_widgets_and_an_edit_makes_them_custom(any_page):
    page = any_page
    page.load(ui("dit_cache"))
    assert widgets(page, "FeMoCache")["preset"] == "custom"  # it keeps the values that it was saved with
    set_widget(page, "FeMoCache", "preset", "DiT: quality, 50 steps")
    assert (widgets(page, "FeMoCache")["interval"], widgets(page, "FeMoCache")["beta"]) == (4, 0.325)
    set_widget(page, "FeMoCache", "coordinate", "sigmas")
    assert widgets(page, "FeMoCache")["preset"] == "custom"
    set_widget(page, "FeMoCache", "preset", "papers: Adapted-FeMo, FLUX, O=1")
    assert widgets(page, "FeMoCache")["coordinate"] == "steps"
    values = widgets(page, "FeMoCache")
    assert (values["max_order"], values["beta"], values["gamma"], values["site"]) == (1, 0.325, 0.0125, "module")
    assert values["interval"] == 4  # which that preset leaves to the user
    assert values["preset"] == "papers: Adapted-FeMo, FLUX, O=1"
    set_widget(page, "FeMoCache", "beta", 0.3)
    assert widgets(page, "FeMoCache")["preset"] == "custom"
    prompt = page.prompt()["2"]["inputs"]
    assert prompt["beta"] == 0.3
    assert not {"preset", "femo_report"} & prompt.keys()
    saved = page.saved()
    page.load(saved)
    assert widgets(page, "FeMoCache")["beta"] == 0.3
    assert page.prompt()["2"]["inputs"] == prompt


def test_widgets_that_mean_nothing_are_greyed_and_keep_their_values(any_page):
    page = any_page
    page.load(ui("dit_cache"))
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == ["beta_min", "beta_max", "budget"]
    set_widget(page, "FeMoCache", "max_order", 0)
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == [
        "beta", "gamma", "beta_min", "beta_max", "momentum_start", "budget", "adaptation"]
    set_widget(page, "FeMoCache", "max_order", 1)
    before = page.prompt()["2"]["inputs"]
    set_widget(page, "FeMoCache", "interval", 0)
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == [
        "beta_min", "beta_max", "warmup_steps", "cooldown_steps", "max_consecutive", "budget", "tolerance"]
    set_widget(page, "FeMoCache", "interval", before["interval"])
    set_widget(page, "FeMoCache", "gamma", 0.01)
    set_widget(page, "FeMoCache", "calibration", "one that is not here")
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == ["tolerance"]
    set_widget(page, "FeMoCache", "adaptation", "least_squares")
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == ["gamma", "tolerance"]
    set_widget(page, "FeMoCache", "gamma", 0)
    grey = widgets(page, "FeMoCache", "disabled")
    assert [name for name, value in grey.items() if value] == ["gamma", "tolerance"]  # the bounds are its, too
    set_widget(page, "FeMoCache", "adaptation", "sign")
    set_widget(page, "FeMoCache", "calibration", "none")
    set_widget(page, "FeMoCache", "enabled", False)
    grey = widgets(page, "FeMoCache", "disabled")
    assert all(grey[name] for name in ("interval", "beta", "site"))
    assert not grey["enabled"]
    set_widget(page, "FeMoCache", "enabled", True)
    assert page.prompt()["2"]["inputs"] == before


def test_auto_says_what_it_learns_and_forgets_it(any_page, profiles):
    page, kind = any_page, any_page.name
    page.load(with_steps(ui("dit_femo"), 20, seed=100 + page.vue))
    assert [name for name, value in widgets(page, "FeMoAuto", "disabled").items() if value] == ["speedup"]
    assert "preset" not in widgets(page, "FeMoAuto")
    assert page.queue()["status"]["status_str"] == "success"
    assert (marks(page, "full"), marks(page, "predicted")) == (20, 0)
    said = page.run("() => document.querySelector('.femo-run').innerText")
    assert "learning the model" in said
    assert "this run teaches the model's profile" in said
    page.page.wait_for_function("document.querySelector('.femo-words')?.innerText.startsWith('learned from 20 steps')")
    page.fit()
    page.screenshot(OUT / f"auto_learning_{kind}.png")

    set_widget(page, "FeMoAuto", "quality", "by speed-up")
    assert not widgets(page, "FeMoAuto", "disabled")["speedup"]
    set_widget(page, "KSampler", "seed", 110 + page.vue)
    page.queue()
    assert (marks(page, "full"), marks(page, "predicted")) == (10, 10)
    said = page.run("() => document.querySelector('.femo-run').innerText")
    assert "model known · budget: 10 full steps · expected change" in said
    assert not page.run("() => document.querySelector('.femo-words')")
    page.fit()
    page.screenshot(OUT / f"auto_known_{kind}.png")

    choose_in_menu(page, "FeMoAuto", "Show what was learned")
    page.page.wait_for_function("!!document.querySelector('.femo-profile')")
    (name,) = (path.stem for path in profiles.iterdir())
    said = page.run("() => document.querySelector('.femo-profile').innerText")
    assert said.startswith(name)
    assert "20 steps · euler · noise levels" in said  # which ddim is here
    page.screenshot(OUT / f"auto_shown_{kind}.png")
    choose_in_menu(page, "FeMoAuto", "Forget what was learned")
    page.until(lambda: not list(profiles.iterdir()))
    page.page.wait_for_function("document.querySelector('.femo-said').innerText.startsWith('Forgotten: ')")
    assert name in page.run("() => document.querySelector('.femo-said').innerText")
    page.screenshot(OUT / f"auto_forgotten_{kind}.png")

    set_widget(page, "KSampler", "seed", 120 + page.vue)
    page.queue()
    assert "learning the model" in page.run("() => document.querySelector('.femo-report').innerText")
    assert "Forgotten" not in page.run("() => document.querySelector('.femo-report').innerText")


def test_a_node_that_has_not_run_asks_what_to_forget(any_page, profiles):
    """Two models are known, and a file that is none."""
    page = any_page
    page.load(ui("dit_femo"))
    choose_in_menu(page, "FeMoAuto", "Forget what was learned")
    assert "Nothing has been learned yet" in page.run("() => document.querySelector('.femo-said').innerText")
    profiles.mkdir(parents=True)
    recording = {"sigmas": [1.0, 0.5, 0.0], "sampler": "euler", "runs": 1, "stochastic": False,
                 "tried": [{"budget": 2, "change": 0.031}]}
    for name in ("First-1", "Second-2"):
        (profiles / f"{name}.json").write_text(json.dumps({"model": name, "recordings": [recording]}))
    (profiles / "Third-3.json").write_text("{")
    choose_in_menu(page, "FeMoAuto", "Forget what was learned")
    page.page.wait_for_function("document.querySelectorAll('.femo-profile').length === 3")
    said = page.run("() => [...document.querySelectorAll('.femo-profile')].map(e => e.innerText)")
    assert "2 steps · euler · noise levels 1 to 0 · tried out: 2 full steps change 3.1 %" in said[0]
    assert "can't be read" in said[2]
    page.screenshot(OUT / f"auto_asks_{page.name}.png")
    page.page.locator(".femo-profile", has_text="Second-2").get_by_role("button").click()
    page.until(lambda: not (profiles / "Second-2.json").exists())
    assert (profiles / "First-1.json").exists()
    choose_in_menu(page, "FeMoAuto", "Show what was learned")
    page.page.get_by_role("button", name="Forget all").click()
    page.until(lambda: not list(profiles.iterdir()))


def test_a_new_node_shows_what_matters(any_page):
    """Where nodes are drawn in Vue; the classic way shows all. Nothing of it changes what is run."""
    page = any_page
    page.load(ui("dit_cache"))
    basic = page.run("() => app.graph.nodes.find(n => n.type === 'FeMoCache').widgets"
                     ".filter(w => !w.options?.advanced).map(w => w.name)")
    assert basic == ["enabled", "interval", "site", "preset", "femo_report"]
    assert page.prompt()["2"]["inputs"]["warmup_steps"] == 2
    if page.vue:
        page.fit()
        node = page.page.locator("[data-node-id='2']")
        assert node.get_by_text("interval", exact=True).is_visible()
        assert not node.get_by_text("warmup_steps", exact=True).is_visible()
        page.screenshot(OUT / "advanced_hidden.png")
        node.get_by_text("Show advanced inputs").click()
        node.get_by_text("warmup_steps", exact=True).wait_for(timeout=10_000)
        page.screenshot(OUT / "advanced_shown.png")


def test_another_cache_on_the_model_is_said_on_the_node(page):
    workflow = api("dit_cache")
    workflow["20"] = {"class_type": "EasyCache", "inputs": {
        "model": ["2", 0], "reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}}
    workflow["6"]["inputs"].update(model=["20", 0], steps=4, seed=29)
    page.load_api(workflow, "two_caches")
    page.queue()
    notices = page.run("() => [...document.querySelectorAll('.femo-notice')].map(e => e.textContent)")
    assert any("this run is not accelerated: the model also has EasyCache" in notice for notice in notices)


def test_that_nothing_was_skipped_is_said_on_the_node(page):
    page.load(with_steps(ui("dit_cache"), 3, seed=30))
    set_widget(page, "FeMoCache", "warmup_steps", 10)
    page.queue()
    said = page.run("() => document.querySelector('.femo-notice').textContent")
    assert "nothing skipped: all 3 steps fall into the warm-up (10)" in said


def test_a_bad_value_is_refused_before_sampling(page):
    page.load(with_steps(ui("dit_cache"), 3, seed=31))
    set_widget(page, "FeMoCache", "gamma", 0.01)
    set_widget(page, "FeMoCache", "beta", 0.9)
    entry = page.queue()
    assert entry["status"]["status_str"] == "error"
    message = next(data for kind, data in entry["status"]["messages"] if kind == "execution_error")
    assert message["node_type"] == "FeMoCache"
    assert "widen the bounds or set gamma to 0" in message["exception_message"]


def test_two_samplers_show_a_strip_each(page):
    page.load(ui("dit_two_pass"))
    page.queue()
    strips = page.run("() => [...document.querySelectorAll('.femo-run')].map(e => "
                      "['full', 'predicted', 'toCome'].map(k => e.querySelectorAll(`.femo-${k}`).length))")
    assert len(strips) == 2
    assert sorted(sum(strip) for strip in strips) == [20, 30]
    assert all(strip[2] == 0 for strip in strips)


def test_two_samplers_on_one_cache_node_show_two_strips_on_it(page):
    workflow = api("dit_compare")
    workflow["7"]["inputs"]["model"] = ["2", 0]
    for key in ("6", "7"):
        workflow[key]["inputs"].update(steps=8 if key == "6" else 10, seed=40)
    page.load_api(workflow, "one_cache")
    page.queue()
    runs = page.run("() => [...document.querySelectorAll('.femo-run')].map(e => e.innerText)")
    assert len(runs) == 2
    assert {text.split(" · ")[0] for text in runs} == {"run 1", "run 2"}


def test_a_page_reloaded_in_mid_run_goes_on(page):
    page.load(with_steps(ui("dit_cache"), 400, seed=50, pictures=8))
    page.run("async () => { await app.queuePrompt(0) }")
    page.page.wait_for_function("document.querySelectorAll('.femo-report .femo-full').length > 3", timeout=60_000)
    page.open()  # the front end brings the workflow back by itself
    page.page.wait_for_function("document.querySelectorAll('.femo-report .femo-full').length > 3", timeout=60_000)
    running = page.run("() => document.querySelector('.femo-run').dataset.done")
    page.run("async () => { await fetch('/interrupt', { method: 'POST' }) }")
    page.page.wait_for_function("document.querySelector('.femo-run')?.dataset.done === 'true'", timeout=60_000)
    assert running == "false"
    assert "stopped" in page.run("() => document.querySelector('.femo-run').innerText")


def strips(page):
    """Steps shown on the cache node of the open workflow."""
    return marks(page, "full") + marks(page, "predicted") + marks(page, "toCome")


def test_a_report_belongs_to_its_workflow(page):
    """Two workflows with the same node ids, as in two tabs: each shows its own last run, and none the other's."""
    first = with_steps(ui("dit_cache"), 6, seed=51) | {"id": "11111111-1111-4111-8111-111111111111"}
    second = with_steps(ui("dit_cache"), 9, seed=52) | {"id": "22222222-2222-4222-8222-222222222222"}
    page.load(first)
    page.queue()
    steps = strips(page)
    page.load(second)
    assert strips(page) == 0
    page.queue()
    assert strips(page) > steps > 0
    page.load(first)
    assert strips(page) == steps
    page.open()
    page.load(first)
    assert strips(page) == steps  # a reload forgets nothing


def test_a_run_goes_on_while_another_workflow_is_open(page):
    first = with_steps(ui("dit_cache"), 150, seed=53, pictures=8) | {"id": "33333333-3333-4333-8333-333333333333"}
    second = ui("dit_cache") | {"id": "44444444-4444-4444-8444-444444444444"}
    page.load(first)
    page.run("async () => { await app.queuePrompt(0) }")
    page.load(second)
    page.wait_until_idle()
    assert strips(page) == 0
    page.load(first)
    assert strips(page) > 100


def test_a_run_of_a_program_draws_on_no_open_workflow(page, server):
    page.load(ui("dit_cache"))
    prompt = api("dit_cache")
    prompt["6"]["inputs"].update(steps=5, seed=54)
    requests.post(f"http://{server.address}/prompt", json={"prompt": prompt}, timeout=60)  # of no client: all are told
    page.wait_until_idle()
    assert strips(page) == 0


def test_switched_off_the_last_report_goes(page):
    page.load(with_steps(ui("dit_cache"), 5, seed=56))
    page.queue()
    assert strips(page) > 0
    set_widget(page, "FeMoCache", "enabled", False)
    assert strips(page) == 0


def test_within_a_subgraph(page):
    page.load(with_steps(ui("dit_cache"), 6, seed=60))
    if not page.run("() => typeof app.graph.convertToSubgraph === 'function'"):
        pytest.skip("no subgraphs here")
    page.run("""() => {
        const nodes = app.graph.nodes.filter(n => ["FeMoCache", "KSampler"].includes(n.type))
        app.graph.convertToSubgraph(new Set(nodes))
    }""")
    assert page.queue()["status"]["status_str"] == "success"
    inner = """() => {
        const subgraph = app.graph.nodes.find(n => n.subgraph).subgraph
        const node = subgraph.nodes.find(n => n.type === "FeMoCache")
        return node.widgets.find(w => w.name === "femo_report").element.querySelectorAll(".femo-full").length
    }"""
    shown = page.run(inner)
    assert shown > 2
    page.load(page.saved())
    assert page.run(inner) == shown


def test_a_picture_dragged_in_brings_its_workflow_back(page):
    page.load(with_steps(ui("dit_cache"), 5, seed=70))
    set_widget(page, "FeMoCache", "interval", 3)
    entry = page.queue()
    before = page.prompt()
    place = next(output["images"][0] for output in entry["outputs"].values() if output.get("images"))
    page.load(ui("dit_two_pass"))
    page.run("""async ({ filename, subfolder, type }) => {
        const picture = await fetch(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
        await app.handleFile(new File([await picture.blob()], filename, { type: "image/png" }))
    }""", place)
    page.until(lambda: inputs_of(page.prompt()) == inputs_of(before))
    assert widgets(page, "FeMoCache")["interval"] == 3


def test_names_and_words_are_in_the_users_language(other_page):
    page = other_page
    title = page.run("() => LiteGraph.registered_node_types.FeMoCache.title")
    label = page.run("() => app.graph.nodes.find(n => n.type === 'FeMoCache').widgets"
                     ".find(w => w.name === 'interval').label")
    idle = page.run("() => document.querySelector('.femo-report').innerText")
    auto = page.run("""() => {
        const node = LiteGraph.createNode("FeMoAuto")
        return [node.title, ...node.getExtraMenuOptions(app.canvas, []).map(entry => entry.content)]
    }""")
    if page.name == "light zh":
        assert auto == ["FeMo 自动", "查看已学到的内容", "忘记已学到的内容"]
        assert "FeMo 缓存" in title
        assert label == "间隔"
        assert "报告" in idle
    else:
        assert auto == ["FeMo Auto", "Show what was learned", "Forget what was learned"]
        assert "FeMo Cache" in title
        assert "appears here" in idle
