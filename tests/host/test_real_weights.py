"""`make real` against a real server, with the tiny Flux and the tiny DiT in the place of real weights."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

import pytest
from comfy_host import HOST
from hosts import server_environment, version
from PIL import Image

from benchmarks.engines.comfy_server import comfy_server, workflow
from benchmarks.real import real_page, real_run, real_weights
from benchmarks.real.real_inputs import OURS, methods_for
from benchmarks.real.real_workflow import Method, find, load, with_method


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with comfy_server(HOST, tmp_path_factory.mktemp("comfy") / "base", "femo", server_environment(HOST)) as client:
        yield client


def flux(steps: int = 12):
    """Its latents decoded, and as many steps as FeMo's full ones at N = 8 are fewer than."""
    prompt = workflow("flux_femo.json", version(HOST))
    prompt["6"]["inputs"]["batch_size"] = 1
    prompt["7"]["inputs"]["steps"] = steps
    prompt["8"] = {"class_type": "TinyFluxDecode", "inputs": {"samples": ["7", 0]}}
    prompt["9"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "not here"}}
    return prompt


@pytest.fixture
def make_real(server, tmp_path, monkeypatch, capsys):
    """As from the command line; what it printed, and what it ended with."""
    def call(prompt, prompts: str, *more: str, address: str = ""):
        (tmp_path / "workflow.json").write_text(json.dumps(prompt), encoding="utf-8")
        (tmp_path / "prompts.txt").write_text(prompts, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", [
            "real_weights.py", "--comfyui", address or f"http://{server.address}", "--workflow",
            str(tmp_path / "workflow.json"), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"),
            "--results", str(tmp_path / "real_weights"), *more])
        try:
            real_weights.main()
            said = ""
        except SystemExit as end:
            said = str(end)
        return capsys.readouterr().out, said

    return call


def records(folder: Path):
    return [json.loads(line) for line in (folder / "out" / "runs.jsonl").read_text(encoding="utf-8").splitlines()]


FLUX = ("--another", "blue box day")


def test_every_method_is_measured_on_the_tiny_flux(server, make_real, tmp_path):
    output, said = make_real(flux(), "Things\tred house day\ngreen tree night\n", *FLUX)
    assert said == ""
    found = records(tmp_path)
    assert not [record for record in found if "failed" in record]
    names = [record["method"] for record in found if record["prompt"] == 0]
    assert {"full", "fewer steps, 2×", "fewer steps, 6×", "EasyCache", "TaylorSeer O=2, N=4", "FeMo O=1, N=8",
            "Adapted-FeMo O=1, N=6"} <= {*names}
    info = server.get("/object_info").json()
    assert ("FeMo Auto, 5×" in names) == ("FeMoAuto" in info)
    if "FeMoAuto" in info:  # it learned from a picture of its own
        learning = json.loads((tmp_path / "out" / "learning.json").read_text(encoding="utf-8"))
        assert (learning["saved"], learning["runs"]) == (0, 12)
        assert all(record["saved"] > 0 for record in found if record["method"].startswith("FeMo Auto"))
    assert [record["method"] for record in found if record["prompt"] == 1] == names
    first = {record["method"]: record for record in found if record["prompt"] == 0}
    assert first["FeMo O=1, N=4"]["runs"] == 5  # steps 0, 1, 2, 6, 10
    assert first["FeMo O=1, N=4"]["runs_full"] == 12
    assert first["FeMo O=1, N=4"]["sites"] == ["module"]
    assert first["fewer steps, 3×"]["steps"] == 4
    assert all(record["seconds"] > 0 for record in found)
    assert all(5 < record["psnr"] <= 1000 and record["ssim"] <= 1 for record in found if record["method"] != "full")
    assert "psnr" not in first["full"]

    summary = json.loads(next((tmp_path / "real_weights").glob("*.json")).read_text(encoding="utf-8"))
    by_name = {method["name"]: method for method in summary["methods"]}
    assert by_name["FeMo O=1, N=4"]["flops_speedup"] == pytest.approx(12 / 5)
    assert by_name["fewer steps, 3×"]["flops_speedup"] == pytest.approx(3.0)
    assert by_name["full"]["latency_speedup"] == 1.0
    assert summary["comfyui"] == version(HOST)
    assert (summary["files"], summary["steps"]) == (["tiny_flux.safetensors"], 12)
    text = json.dumps(summary)
    assert "house" not in text  # no prompt is in what is sent in
    assert all(text.startswith("--") for text in summary["arguments"])  # nor a path
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table in output
    assert "| FeMo O=1, N=4 | 2 |" in table
    page = (tmp_path / "real_weights.md").read_text(encoding="utf-8")
    assert page == real_page.page([summary])
    with Image.open(tmp_path / "out" / "prompt_1.jpg") as sheet:
        assert sheet.width > 6 * real_page.SHEET_SIDE

    output, said = make_real(flux(), "Things\tred house day\ngreen tree night\n", *FLUX)
    assert "0 runs to go" in output
    assert records(tmp_path) == found


def test_classes_of_the_tiny_dit_are_its_prompts(make_real, tmp_path):
    prompt = workflow("dit_femo.json", version(HOST))
    prompt["5"]["inputs"]["batch_size"] = 2
    prompt["6"]["inputs"]["steps"] = 10
    output, said = make_real(prompt, "2, 33\n", "--methods", "TaylorSeer O=4, N=3", "adapted", "fewer steps, 2")
    assert said == ""
    found = {record["method"]: record for record in records(tmp_path)}
    assert {*found} == {"full", "fewer steps, 2×", "TaylorSeer O=4, N=3", *(
        f"Adapted-FeMo O=2, N={interval}" for interval in (3, 5, 7, 9))}
    assert all(record["pictures"] == 2 for record in found.values())
    taylorseer = found["TaylorSeer O=4, N=3"]
    assert taylorseer["psnr_min"] <= taylorseer["psnr"]
    assert "the worst" in output
    assert not [record for record in found.values() if "failed" in record]


def test_one_prompt_is_a_smoke_test_and_the_rest_goes_on_from_it(make_real, tmp_path):
    prompts = "red house day\ngreen tree night\n"
    output, said = make_real(flux(6), prompts, "--smoke", "--methods", "fewer steps, 2", *FLUX)
    assert said == ""
    assert "2 runs to go" in output
    assert not (tmp_path / "real_weights").exists()  # nothing to be sent in
    output, said = make_real(flux(6), prompts, "--methods", "fewer steps, 2", *FLUX)
    assert "2 runs to go" in output
    assert [(record["prompt"], record["method"]) for record in records(tmp_path)] == [
        (0, "full"), (0, "fewer steps, 2×"), (1, "full"), (1, "fewer steps, 2×")]
    _, said = make_real(flux(8), prompts, "--methods", "fewer steps, 2", *FLUX)
    assert "holds runs with another workflow: choose another folder" in said


def test_a_custom_sampler_and_its_guider_are_found(make_real, tmp_path):
    prompt = flux()
    model = prompt["7"]["inputs"]["model"]
    prompt |= {
        "7": {"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": ["20", 0], "guider": ["21", 0], "sampler": ["22", 0], "sigmas": ["23", 0],
            "latent_image": ["6", 0]}},
        "20": {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}},
        "21": {"class_type": "BasicGuider", "inputs": {"model": model, "conditioning": ["4", 0]}},
        "22": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "23": {"class_type": "BasicScheduler", "inputs": {
            "model": model, "scheduler": "simple", "steps": 12, "denoise": 1.0}}}
    _, said = make_real(prompt, "red house day\n", "--methods", "FeMo O=1, N=4", "fewer steps, 2",
                        "--steps", "16", *FLUX)
    assert said == ""
    found = {record["method"]: record for record in records(tmp_path)}
    assert (found["full"]["steps"], found["fewer steps, 2×"]["steps"]) == (16, 8)
    assert found["FeMo O=1, N=4"]["runs_full"] == 16


def two_samplers():
    prompt = flux(6)
    prompt["30"] = json.loads(json.dumps(prompt["7"]))
    prompt["30"]["inputs"]["seed"] = 9
    prompt["31"] = {"class_type": "TinyFluxDecode", "inputs": {"samples": ["30", 0]}}
    prompt["32"] = {"class_type": "SaveImage", "inputs": {"images": ["31", 0], "filename_prefix": "nor here"}}
    return prompt


def test_of_two_samplers_one_has_to_be_named(make_real, tmp_path):
    _, said = make_real(two_samplers(), "red house day\n", *FLUX)
    assert re.search(r"several samplers that don't follow one another: 7 \(KSampler.*30 \(KSampler.*--sampler ID", said)
    output, said = make_real(two_samplers(), "red house day\n", "--sampler", "30", "--smoke", "--methods",
                             "fewer steps, 2", *FLUX)
    assert said == ""
    assert "samplers 30;" in output


def test_two_samplers_that_follow_one_another_are_one_run(make_real, tmp_path):
    prompt = workflow("dit_two_pass.json", version(HOST))
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 8
    output, said = make_real(prompt, "2\n", "--smoke", "--methods", "FeMo O=2, N=3")
    assert said == ""
    found = {record["method"]: record for record in records(tmp_path)}
    assert re.search(r"samplers \w+, \w+;", output)
    assert found["FeMo O=2, N=3"]["runs"] < found["FeMo O=2, N=3"]["runs_full"]


@pytest.mark.parametrize(("change", "prompts", "more", "words"), [
    (lambda prompt: prompt.pop("7"), "red house day\n", (), "no sampler found"),
    (lambda prompt: prompt["7"]["inputs"].update(model=["99", 0]), "red house day\n", (), "no sampler found"),
    (lambda prompt: prompt.pop("8"), "red house day\n", (), "no picture comes of the sampler 7"),
    (lambda prompt: prompt["3"].update(class_type="Nowhere"), "red house day\n", (), "lacks the node Nowhere"),
    (lambda prompt: prompt["1"]["inputs"].update(unet_name="not.there"), "red house day\n", (), "lacks not.there"),
    (lambda prompt: None, "", (), "there is no prompt in it"),
    (lambda prompt: None, "a\tb\tc\n", (), r"prompts file .*, line 1: 'a\\tb\\tc' is no prompt"),
    (lambda prompt: None, "\n# none\nThings\t\n", (), "line 3: 'Things"),
    (lambda prompt: None, "red house day\n", ("--methods", "magic"), "methods: 'magic' is none of full,"),
    (lambda prompt: None, "red house day\n", ("--sampler", "5"), "sampler '5' is not one of this workflow's: 7"),
    (lambda prompt: None, "red horse day\n", FLUX, "the full run failed.*unknown word 'horse'"),
    (lambda prompt: None, "red house day\n", (), "the first run, of 'a wooden boat .*--another chooses what.*unknown"),
])
def test_bad_input_is_a_clear_error(make_real, change, prompts, more, words):
    prompt = flux(4)
    change(prompt)
    _, said = make_real(prompt, prompts, *more)
    assert re.search(words, said, re.S), said
    assert said.startswith("make real: ")


def test_a_workflow_for_the_browser_is_a_clear_error(make_real):
    _, said = make_real({"nodes": [], "links": []}, "red house day\n")
    assert "this one is for the browser" in said


def test_a_prompts_file_that_is_no_text_is_a_clear_error(make_real, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    _, said = make_real(flux(), "red house day\n", "--prompts", str(tmp_path / "bytes.txt"))
    assert "can't be read as text in UTF-8" in said
    _, said = make_real(flux(), "red house day\n", "--prompts", str(tmp_path / "absent.txt"))
    assert "can't be read" in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "ftp://127.0.0.1", "http://"])
def test_no_server_is_a_clear_error(make_real, address):
    _, said = make_real(flux(), "red house day\n", address=address)
    assert re.search("no ComfyUI answers at http://127.0.0.1:9: start it|COMFYUI must be an address", said)


def test_classes_are_asked_for_where_a_workflow_draws_classes(make_real):
    _, said = make_real(workflow("dit_femo.json", version(HOST)), "2, 33\nred house day\n")
    assert "each line must be a class index" in said
    assert "'red house day'" in said


def test_without_a_workflow_it_says_what_ours_lack(server, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["real_weights.py", "--comfyui", server.address])
    with pytest.raises(SystemExit, match=r"(?s)flux_dev_femo: flux1-dev.safetensors.*WORKFLOW=path.json"):
        real_weights.main()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_workflows_lack_nothing_but_their_weights(server, path):
    """Each method put in; and each is found to sample what it should."""
    info = server.get("/object_info").json()
    prompt = load(path)
    if lacking := {node["class_type"] for node in prompt.values()} - info.keys():
        pytest.skip(f"ComfyUI {version(HOST)} has no {', '.join(sorted(lacking))}")
    sampling = find(prompt, info)
    assert sampling.total_steps >= 20
    assert len(sampling.samplers) == len(sampling.models) == (2 if "wan22" in path.stem else 1)
    assert sampling.seeds
    assert sampling.texts
    for method in methods_for(sampling, info):
        answer = server.post(with_method(sampling, method, "207", 1, info))
        errors = [error for node in answer.json()["node_errors"].values() for error in node["errors"]]
        assert errors
        assert {error["type"] for error in errors} == {"value_not_in_list"}
        names = {error["extra_info"]["input_name"].rstrip("12") for error in errors}
        assert names <= {"unet_name", "clip_name", "vae_name", "model_name"}, method.name


def test_a_method_that_fails_costs_the_others_nothing(make_real, tmp_path, monkeypatch):
    """Whatever the server has against it."""
    right = real_weights.methods_for

    def with_a_wrong_one(*of):
        return [*right(*of), Method("of no use", "FeMoCache", {"beta": 7.0})]

    monkeypatch.setattr(real_weights, "methods_for", with_a_wrong_one)
    output, said = make_real(flux(6), "red house day\n", "--methods", "of no use", "fewer steps, 2", *FLUX)
    assert said == ""
    assert [record["method"] for record in records(tmp_path) if "failed" in record] == ["of no use"]
    assert re.search(r"\| of no use \| 0 of 1 \|.*the server refused the workflow", output)


def test_a_server_that_goes_away_is_said_and_the_rest_is_made_when_it_is_back(make_real, tmp_path):
    """Killed while it samples."""
    prompts = "red house day\ngreen tree night\n"
    with comfy_server(HOST, tmp_path / "first", "femo", server_environment(HOST)) as client:
        def watch():
            log = tmp_path / "out" / "runs.jsonl"
            while not log.exists() or len(log.read_text(encoding="utf-8").splitlines()) < 2:
                time.sleep(0.02)
            stop.set()

        stop = threading.Event()
        threading.Thread(target=watch, daemon=True).start()

        def kill():
            stop.wait(120)
            client.process.kill()

        threading.Thread(target=kill, daemon=True).start()
        _, said = make_real(flux(40), prompts, "--methods", "fewer steps", *FLUX, address=client.address)
    assert re.search(r"went away, \d+ runs before the end: start it and run this again", said), said
    before = records(tmp_path)
    assert 2 <= len(before) < 10
    assert "| full | 1 |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    _, said = make_real(flux(40), prompts, "--methods", "fewer steps", *FLUX)
    assert said == ""
    assert records(tmp_path)[: len(before)] == before
    assert len(records(tmp_path)) == 10


def test_an_interrupt_stops_the_server_too(make_real, tmp_path, server, monkeypatch):
    right, runs = real_run.Measurement.measure, []

    def interrupted(self, index, method):
        runs.append(method)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return right(self, index, method)

    monkeypatch.setattr(real_run.Measurement, "measure", interrupted)
    _, said = make_real(flux(6), "red house day\n", "--methods", "fewer steps", *FLUX)
    assert "interrupted: run this again, and it goes on there" in said
    assert len(records(tmp_path)) == 1
    monkeypatch.undo()
