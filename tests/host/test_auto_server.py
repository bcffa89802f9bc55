"""FeMo Auto in real servers: over HTTP, after a restart, and two at once."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from comfy_host import HOST
from hosts import server_environment, version

from benchmarks.engines.comfy_server import comfy_server, workflow

STEPS = 16
PROFILES = "user/default/femo_profiles"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("comfy") / "base"


@pytest.fixture
def server(base):
    """A fresh process on the same folder."""
    with comfy_server(HOST, base, "femo", server_environment(HOST)) as client:
        yield client


def prompt_of(node=None, **sampler):
    """The small Flux with FeMo Auto; node None: without any."""
    prompt = copy.deepcopy(workflow("flux_femo.json", version(HOST)))
    model = prompt["2"]["inputs"]["model"]
    prompt["7"]["inputs"].update({"seed": 1, "steps": STEPS} | sampler)
    if node is None:
        del prompt["2"]
        prompt["7"]["inputs"]["model"] = model
    else:
        prompt["2"] = {"class_type": "FeMoAuto", "inputs": {
            "model": model, "enabled": True, "quality": "balanced", "speedup": 2.0, "learn": "once"} | node}
    return prompt


def latent(client, prompt):
    return client.latent(client.run(prompt), "8")


def report(client, prompt):
    return client.report(client.run(prompt))


def test_learned_once_it_serves_all_settings_and_the_next_server(base, server):
    """First bit-equal, then as many network runs as announced; the profile is served, and can be deleted there."""
    plain = latent(server, prompt_of())
    messages = server.run(prompt_of({}))
    first = server.report(messages)
    assert first["settings"]["learned"] == "learning"
    assert first["network_runs"] == STEPS
    assert torch.equal(server.latent(messages, "8"), plain)
    assert torch.equal(latent(server, prompt_of({"enabled": False})), plain)
    for sampler in ({}, {"steps": 24}, {"sampler_name": "dpmpp_2m"}, {"scheduler": "normal"}, {"cfg": 2.0},
                    {"seed": 5}, {"steps": 8}):
        known = report(server, prompt_of({"quality": "fast"}, **sampler))
        assert known["settings"]["learned"] == "yes", sampler
        assert known["network_runs_saved"] > 0 or known["reason"], sampler
        assert len(known["full_steps"]) + len(known["predicted_steps"]) == sampler.get("steps", STEPS)
    (path,) = (base / PROFILES).glob("*.json")
    listed = server.get("/userdata", dir="femo_profiles").json()
    assert listed == [path.name]
    assert server.get(f"/userdata/femo_profiles%2F{path.name}").json() == json.loads(path.read_text())
    assert report(server, prompt_of({"learn": "off"}))["settings"]["learned"] == "off"


def test_a_restarted_server_still_knows(server):
    known = report(server, prompt_of({"quality": "fast"}))
    assert known["settings"]["learned"] == "yes"
    assert known["network_runs_saved"] > 0


def test_several_samplers_each_with_its_node(server):
    """One after the other in one workflow, as with Wan's experts; the second runs the lower half of the levels."""
    prompt = prompt_of({"quality": "fast"})
    second = copy.deepcopy(prompt["2"])
    prompt["40"] = second
    sampler = {key: value for key, value in prompt["7"]["inputs"].items() if key not in ("seed", "denoise")}
    common = {"noise_seed": 1, "add_noise": "enable", "start_at_step": 0, "end_at_step": 8,
              "return_with_leftover_noise": "enable"}
    prompt["7"] = {"class_type": "KSamplerAdvanced", "inputs": sampler | common}
    prompt["41"] = {"class_type": "KSamplerAdvanced", "inputs": sampler | common | {
        "model": ["40", 0], "latent_image": ["7", 0], "add_noise": "disable", "start_at_step": 8, "end_at_step": 10000,
        "return_with_leftover_noise": "disable"}}
    prompt["8"]["inputs"]["samples"] = ["41", 0]
    reports = [message["data"]["report"] for message in server.run(prompt) if message["type"] == "femo.report"]
    assert [found["settings"]["learned"] for found in reports] == ["yes", "yes"]
    assert [found["total_steps"] for found in reports] == [8, 8]


def test_bad_input_is_refused(server):
    with pytest.raises(Exception, match="speedup"):
        server.run(prompt_of({"speedup": 20.0}))


def test_two_servers_learn_at_once_and_share(base, tmp_path):
    second = tmp_path / "base"
    for path in (base / PROFILES).glob("*"):
        path.unlink()
    with ExitStack() as stack:
        clients = [stack.enter_context(comfy_server(HOST, base, "femo", server_environment(HOST)))]
        (second / PROFILES).parent.mkdir(parents=True)
        (second / PROFILES).symlink_to(base / PROFILES, target_is_directory=True)
        clients.append(stack.enter_context(comfy_server(
            HOST, second, "femo", server_environment(HOST), models=base / "models")))
        with ThreadPoolExecutor(2) as pool:
            first = list(pool.map(lambda client: report(client, prompt_of({})), clients))
        assert {found["network_runs"] for found in first} <= {STEPS, *range(STEPS)}
        known = [report(client, prompt_of({"quality": "fast"}, seed=9)) for client in clients]
    assert [found["settings"]["learned"] for found in known] == ["yes", "yes"]
    assert known[0]["full_steps"] == known[1]["full_steps"]
    (path,) = (base / PROFILES).iterdir()
    assert len(json.loads(path.read_text())["recordings"]) == 1
