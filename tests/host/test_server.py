"""A real server, run as a headless user does: HTTP in, websocket out."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import subprocess
import sys
from urllib.parse import quote

import numpy as np
import pytest
import requests
import torch
from comfy_host import HOST
from hosts import server_environment, version
from PIL import Image

from benchmarks.engines.comfy_server import ROOT, comfy_server, workflow
from femo_core import Schedule

# PSNR of the latents to the full run's that a run must reach, in dB. Measured on 0.29.0, 0.8.0 and 0.3.64 alike: 33.2
# for the example workflow (N = 6, no cool-down); 42.1 at hidden, 42.3 at module, 40.1 at output (N = 4, cool-down 1).
CLOSE, CLOSER = 30.0, 38.0
DIT_CLOSE = 20.0
FOLDER = "any-Name.2_0"  # of the pack in custom_nodes (with a space in it ComfyUI serves no help pages)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfy") / "base"
    with comfy_server(HOST, folder, FOLDER, server_environment(HOST)) as client:
        yield client


@pytest.fixture(scope="module")
def prompt():
    return workflow("flux_femo.json", version(HOST))


@pytest.fixture(scope="module")
def full(server, prompt):
    """The full run's latents: the same workflow with the node switched off."""
    messages = server.run(changed(prompt, enabled=False))
    assert not [m for m in messages if m["type"] == "femo.report"]
    return server.latent(messages, "8")


def changed(prompt, node="2", **inputs):
    prompt = copy.deepcopy(prompt)
    prompt[node]["inputs"].update(inputs)
    return prompt


def of_one_picture(prompt):
    """A DiT workflow's."""
    return changed(changed(prompt, "3", class_index="2"), "5", batch_size=1)


def psnr(latent: torch.Tensor, reference: torch.Tensor) -> float:
    """Over the reference's own range, in dB."""
    error = (latent - reference).square().mean()
    return (20 * torch.log10(reference.max() - reference.min()) - 10 * torch.log10(error)).item()


def test_the_pack_loads_under_any_name_through_a_link_without_a_warning(server):
    assert {"FeMoCache", "TaylorSeerCache"} <= server.get("/object_info").json().keys()
    log = server.log.read_text()
    assert re.search(r"[\d.]+ seconds: .*any-Name\.2_0", log)
    assert not re.search(r"(IMPORT FAILED|Cannot import).*any-Name", log)


def test_a_clone_of_the_repository_is_all_that_it_takes(tmp_path):
    """As the README says: cloned, nothing else installed, and the first workflow runs."""
    clone = tmp_path / "clone"
    if not shutil.which("git") or subprocess.run(
            ["git", "clone", "--quiet", str(ROOT), str(clone)], capture_output=True).returncode:
        pytest.skip("this is no git repository, or there is no git")
    with comfy_server(HOST, tmp_path / "base", "femo-cache", server_environment(HOST), clone) as client:
        prompt = of_one_picture(changed(workflow("dit_femo.json", version(HOST)), quality="by speed-up"))
        for seed, learned in ((1, "learning"), (2, "yes")):
            report = client.report(client.run(changed(prompt, "6", steps=12, seed=seed)))
            assert report["settings"]["learned"] == learned
        assert report["network_runs_saved"] > 0
        assert re.search(r"[\d.]+ seconds: .*femo-cache", client.log.read_text())


DOCS = ROOT / "web" / "docs"


@pytest.mark.parametrize("page", [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.*"))])
def test_the_help_pages_and_their_pictures_are_served(server, page):
    assert server.get(f"/extensions/{quote(FOLDER)}/docs/{page}").content == (DOCS / page).read_bytes()


def test_translations_are_served(server):
    served = server.get("/i18n").json()["zh"]["nodeDefs"]
    assert served.items() >= json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text()).items()


def test_the_example_workflow_runs_the_network_ten_times_of_fifty(server, prompt, full):
    messages = server.run(prompt)
    report = server.report(messages)
    assert tuple(report["full_steps"]) == Schedule(6, 3).full_steps(50)
    assert (report["network_runs"], report["network_runs_saved"]) == (10, 40)
    assert report["settings"]["beta"] == 0.325
    latent = server.latent(messages, "8")
    assert torch.isfinite(latent).all()
    print(f"PSNR of the latents to the full run's: {psnr(latent, full):.1f} dB")
    assert psnr(latent, full) > CLOSE


@pytest.mark.parametrize("site", ["hidden", "module", "output"])
def test_every_site_is_close_to_the_full_run(server, prompt, full, site):
    messages = server.run(changed(prompt, site=site, interval=4, cooldown_steps=1))
    assert server.report(messages)["network_runs"] == 15
    figure = psnr(server.latent(messages, "8"), full)
    print(f"{site}: {figure:.1f} dB")
    assert figure > CLOSER


def test_interval_one_is_bit_equal(server, prompt, full):
    messages = server.run(changed(prompt, interval=1))
    assert torch.equal(server.latent(messages, "8"), full)
    assert server.report(messages)["reason"] == "interval is 1"


def test_the_log_has_one_line_a_run(server, prompt):
    before = server.log.read_text().count("network runs")
    server.run(changed(prompt, "7", seed=11))
    lines = [line for line in server.log.read_text().splitlines() if "network runs" in line]
    assert len(lines) == before + 1
    assert "FeMo Cache: 10 full and 40 forecast of 50 steps, 10 network runs, 40 saved (5.00x fewer)" in lines[-1]


def test_the_message_names_node_and_prompt(server, prompt):
    messages = server.run(changed(prompt, "7", seed=12))
    started = next(m["data"]["prompt_id"] for m in messages if m["type"] == "execution_start")
    data = next(m["data"] for m in messages if m["type"] == "femo.report")
    assert (data["node_id"], data["prompt_id"]) == ("2", started)


def test_two_like_nodes_each_get_their_own_reports(server, prompt):
    """Not one for both from ComfyUI's cache of results."""
    both = changed(changed(prompt, "7", seed=31, steps=8), enabled=True)
    both["20"], both["21"], both["22"] = (copy.deepcopy(both[key]) for key in ("2", "7", "8"))
    both["21"]["inputs"].update(model=["20", 0], seed=32)
    both["22"]["inputs"].update(samples=["21", 0])
    messages = server.run(both)
    assert [m["data"]["node_id"] for m in messages if m["type"] == "femo.report"] in (["2", "20"], ["20", "2"])


def test_progress_comes_while_a_run_goes_on_and_the_report_into_the_history(server, prompt):
    prompt = changed(prompt, "7", seed=33)
    prompt["30"] = {"class_type": "FeMoReport", "inputs": {
        "model": ["2", 0], "after": ["7", 0], "save_json": True, "filename_prefix": "reports/femo"}}
    messages = server.run(prompt)
    progress = [m["data"] for m in messages if m["type"] == "femo.progress"]
    assert progress
    assert all(data["report"]["total_steps"] == 50 and data["node_id"] == "2" for data in progress)
    done = [len(data["report"]["full_steps"]) + len(data["report"]["predicted_steps"]) for data in progress]
    assert done == sorted(done)
    started = next(m["data"]["prompt_id"] for m in messages if m["type"] == "execution_start")
    kept = server.get(f"/history/{started}").json()[started]["outputs"]["30"]["femo_report"][0]
    assert kept == server.report(messages)
    written = server.get("/view", filename="femo_00001_.json", subfolder="reports", type="output").json()
    assert written == kept


def test_the_taylorseer_node(server, prompt, full):
    prompt = copy.deepcopy(prompt)
    keep = ("model", "enabled", "interval", "max_order", "warmup_steps", "cooldown_steps", "site")
    prompt["2"] = {"class_type": "TaylorSeerCache", "inputs": {key: prompt["2"]["inputs"][key] for key in keep}}
    messages = server.run(prompt)
    assert server.report(messages)["settings"]["predictor"] == "TaylorSeer"
    assert server.report(messages)["network_runs"] == 10
    assert psnr(server.latent(messages, "8"), full) > CLOSE


def test_guidance_with_a_negative_prompt(server, prompt):
    plain = server.latent(server.run(changed(changed(prompt, enabled=False), "7", cfg=2.5)), "8")
    messages = server.run(changed(prompt | {"4": changed(prompt, "4", guidance=1.0)["4"]}, "7", cfg=2.5))
    assert torch.isfinite(plain).all()
    assert server.report(messages)["full_steps"] == list(Schedule(6, 3).full_steps(50))
    assert torch.isfinite(server.latent(messages, "8")).all()


@pytest.mark.parametrize(("inputs", "word"), [
    ({"interval": -1}, "interval"), ({"max_order": 9}, "max_order"), ({"beta": 1.0}, "beta")])
def test_values_out_of_range_are_refused_before_anything_runs(server, prompt, inputs, word):
    answer = server.post(changed(prompt, **inputs))
    assert answer.status_code == 400
    errors = answer.json()["node_errors"]["2"]["errors"]
    assert any(word in error["details"] for error in errors)


def test_an_unknown_site_is_a_clear_error(server, prompt):
    """0.3.64 does not check lists: there the node itself says so."""
    with pytest.raises(RuntimeError, match=r"site.*nowhere"):
        server.run(changed(prompt, site="nowhere"))


def test_bounds_that_exclude_beta_are_a_clear_error(server, prompt):
    with pytest.raises(RuntimeError, match="widen the bounds or set gamma to 0"):
        server.run(changed(prompt, gamma=0.01, beta=0.9))


def test_the_flux_dev_workflow_lacks_nothing_but_its_weights(server):
    answer = server.post(workflow("flux_dev_femo.json", "1.0"))
    errors = [error for node in answer.json()["node_errors"].values() for error in node["errors"]]
    assert errors
    assert {error["type"] for error in errors} == {"value_not_in_list"}
    files = {"unet_name", "clip_name1", "clip_name2", "vae_name"}
    assert {error["extra_info"]["input_name"] for error in errors} == files


def images(server, messages, node: str) -> torch.Tensor:
    """What a SaveImage node saved, (B, H, W, 3) in 0 … 1."""
    output = next(m["data"]["output"] for m in messages if m["type"] == "executed" and m["data"]["node"] == node)
    files = [io.BytesIO(server.get("/view", **place).content) for place in output["images"]]
    return torch.stack([torch.from_numpy(np.array(Image.open(file).convert("RGB"))).float() / 255 for file in files])


def test_the_dit_workflow_draws_without_any_download(server):
    prompt = workflow("dit_cache.json", version(HOST))
    full = images(server, server.run(changed(prompt, enabled=False)), "10")
    messages = server.run(prompt)
    report = server.report(messages)
    assert tuple(report["full_steps"]) == Schedule(4, 2, 1).full_steps(50)
    assert report["settings"]["model"] == "DiT"
    pictures = images(server, messages, "10")
    assert pictures.shape == (8, 256, 256, 3)
    figure = psnr(pictures, full)
    print(f"PSNR of the pictures to the full run's: {figure:.1f} dB")
    assert figure > DIT_CLOSE
    red, green, blue = pictures[0, 100:180, 100:150].mean((0, 1))  # the first class is a red house
    assert red > green + 0.1
    assert red > blue + 0.1


def test_the_calibration_workflow_records_a_run_and_uses_it_at_once(server):
    """All by HTTP: the file, too, is there to be listed, fetched and put on another server."""
    prompt = of_one_picture(workflow("dit_calibrate.json", version(HOST)))
    report = server.report(server.run(prompt))
    assert report["settings"]["calibration"] == "dit example"
    assert report["warnings"] == []
    assert len(report["full_steps"]) == 14
    assert [row["step"] for row in report["expected_errors"]] == report["full_steps"][1:]
    assert "saved as dit example: 50 steps, runs: 1" in server.log.read_text()
    place = quote("femo_calibrations/dit example.json", safe="")
    saved = server.get(f"/userdata/{place}").json()
    (recording,) = saved["recordings"]
    assert (len(recording["matrix"]), recording["sampler"], recording["guidance"]) == (50, "euler", 2.5)
    options = server.get("/object_info/FeMoCache").json()["FeMoCache"]["input"]["optional"]["calibration"]
    assert (options[1].get("options") or options[0]) == ["none", "dit example"]
    # The next run, without FeMo Calibrate, of other pictures; on "another server", where the file has another name.
    requests.post(f"http://{server.address}/userdata/{place.replace('example', 'copy')}", json=saved).raise_for_status()
    plain = of_one_picture(changed(workflow("dit_cache.json", version(HOST)), "6", seed=3))
    next_report = server.report(server.run(changed(plain, calibration="dit copy", budget=14)))
    assert next_report["full_steps"] == report["full_steps"]


@pytest.mark.parametrize("node", ["FeMoCache", "TaylorSeerCache"])
def test_calibrated_full_steps_are_worth_more_than_as_many_of_the_intervals(server, prompt, full, node):
    """Recorded of another picture."""
    recorded = changed(changed(prompt, enabled=False), "7", model=["40", 0], seed=41)
    recorded["40"] = {"class_type": "FeMoCalibrate", "inputs": {
        "model": ["1", 0], "enabled": True, "name": "tiny Flux", "average": False}}
    assert not [m for m in server.run(recorded) if m["type"] == "femo.report"]
    keep = ("model", "enabled", "interval", "max_order", "warmup_steps", "cooldown_steps", "site")
    prompt = copy.deepcopy(prompt)
    if node == "TaylorSeerCache":
        prompt["2"] = {"class_type": node, "inputs": {key: prompt["2"]["inputs"][key] for key in keep}}
    figures = {}
    for calibration in ("none", "tiny Flux"):
        messages = server.run(changed(prompt, calibration=calibration))
        report = server.report(messages)
        assert len(report["full_steps"]) == 10
        assert report["settings"]["calibration"] == calibration
        figures[calibration] = psnr(server.latent(messages, "8"), full)
    print(f"{node}: {figures}")
    assert figures["tiny Flux"] > figures["none"] + 1  # measured on 0.29.0: 3.9 and 2.2 dB


def test_a_calibration_that_is_not_there_is_no_reason_not_to_run(server, prompt):
    messages = server.run(changed(prompt, calibration="of another machine", budget=9))
    report = server.report(messages)
    assert tuple(report["full_steps"]) == Schedule(6, 3).full_steps(50)
    assert "there is no 'of another machine.json'" in report["warnings"][0]


def test_a_name_that_leads_out_of_the_folder_is_a_clear_error(server):
    prompt = changed(workflow("dit_calibrate.json", version(HOST)), "18", name="../../elsewhere")
    with pytest.raises(RuntimeError, match="name must be letters, digits, spaces and"):
        server.run(prompt)


@pytest.mark.parametrize(("node", "inputs", "words"), [
    ("3", {"class_index": "80"}, "class_index must be 0 to 79 for this model, which has 80 classes; got 80"),
    ("3", {"class_index": "cat"}, "class_index must be whole numbers from 0 up, separated by commas; got 'cat'")])
def test_a_wrong_class_is_a_clear_error(server, node, inputs, words):
    with pytest.raises(RuntimeError, match=words):
        server.run(changed(workflow("dit_cache.json", version(HOST)), node, **inputs))


def printed_block(page: str, language: str, word: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if word in block)


@pytest.mark.parametrize(("page", "language", "word", "command"), [
    ("docs/nodes.md", "bash", "curl", ["bash", "-c"]),
    ("docs/nodes.md", "python", "create_connection", [sys.executable, "-c"])])
def test_the_headless_calls_work_as_printed(server, prompt, tmp_path, page, language, word, command):
    """But for the port, and the workflow that needs no downloads."""
    if not shutil.which(command[0]) or (word == "curl" and not shutil.which("curl")):
        pytest.skip(f"no {word} on this machine")
    workflow_file = tmp_path / "workflow.json"
    workflow_file.write_text(json.dumps(changed(prompt, "7", seed=21 if word == "curl" else 22, steps=8)))
    code = printed_block(page, language, word).replace("127.0.0.1:8188", server.address)
    code = code.replace("example_workflows/api/flux_dev_femo.json", str(workflow_file))
    done = subprocess.run([*command, code], capture_output=True, text=True, check=True, timeout=120)
    answer = json.loads(done.stdout)
    assert answer.get("prompt_id") if word == "curl" else answer["total_steps"] == 8


