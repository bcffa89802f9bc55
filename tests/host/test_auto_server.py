"""FeMo Auto in a real server, over HTTP. test_two_servers.py has two, and so one that did not learn itself."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from comfy_host import HOST
from hosts import server_environment, version
from safetensors.torch import load_file, save_file

from benchmarks.engines.comfy_server import ROOT, comfy_server, workflow

STEPS = 16
CHECKPOINTS = ROOT / "benchmarks" / "checkpoints"
PROFILES = "user/default/femo_profiles"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("comfy") / "base"


@pytest.fixture(scope="module")
def server(base):
    with comfy_server(HOST, base, "femo", server_environment(HOST)) as client:
        yield client


@pytest.fixture
def profiles(base):
    """Files of what is known; none at the beginning."""
    def found():
        return sorted((base / PROFILES).glob("*"))

    for path in found():
        path.unlink()
    return found


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


def test_learned_once_it_serves_all_settings(server, profiles):
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
    (path,) = profiles()
    listed = server.get("/userdata", dir="femo_profiles").json()
    assert listed == [path.name]
    assert server.get(f"/userdata/femo_profiles%2F{path.name}").json() == json.loads(path.read_text())
    assert report(server, prompt_of({"learn": "off"}))["settings"]["learned"] == "off"


def test_image_to_image_and_another_batch(server, profiles):
    """A run that begins in the midst goes by what a whole one taught; taught by it alone, a whole one teaches more."""
    prompt = prompt_of({"quality": "fast"})
    prompt["40"] = copy.deepcopy(prompt["7"])
    prompt["40"]["inputs"] |= {"latent_image": ["7", 0], "denoise": 0.6}
    prompt["8"]["inputs"]["samples"] = ["40", 0]
    prompt["6"]["inputs"]["batch_size"] = 1
    assert [found["settings"]["learned"] for found in reports(server, prompt)] == ["learning", "yes"]
    for path in profiles():
        path.unlink()
    prompt["7"]["inputs"]["model"] = prompt["2"]["inputs"]["model"]  # the first sampler without the node
    assert [found["settings"]["learned"] for found in reports(server, prompt)] == ["learning"]
    before = [json.loads(path.read_text())["recordings"] for path in profiles()]
    assert report(server, prompt_of({}, seed=6))["settings"]["learned"] == "learning"
    after = [json.loads(path.read_text())["recordings"] for path in profiles()]
    assert (len(before[0]), len(after[0])) == (1, 2)


def test_an_interrupt_in_the_run_that_teaches_leaves_nothing(server, profiles):
    prompt = prompt_of({})
    prompt["7"]["inputs"]["model"] = ["40", 0]
    prompt["40"] = {"class_type": "InterruptsAt", "inputs": {"model": ["2", 0], "evaluation": 5}}
    assert any(message["type"] == "execution_interrupted" for message in server.run(prompt))
    assert profiles() == []
    assert report(server, prompt_of({}, seed=8))["settings"]["learned"] == "learning"


def test_several_samplers_each_with_its_node(server, profiles):
    """One after the other in one workflow, for the upper and the lower half of the levels."""
    report(server, prompt_of({}, seed=7))  # a prompt that was run before is not run again
    found = reports(server, two_halves(prompt_of({"quality": "fast"})))
    assert [one["settings"]["learned"] for one in found] == ["yes", "yes"]
    assert [one["total_steps"] for one in found] == [8, 8]


def test_two_experts_of_one_class_and_shape_have_a_profile_each(server, base, profiles):
    """As Wan 2.2's: each runs at its own half of the levels."""
    weights = load_file(CHECKPOINTS / "tiny_flux.safetensors")
    generator = torch.Generator().manual_seed(0)
    other = {name: torch.randn(weight.shape, generator=generator) if weight.ndim == 1 else weight
             for name, weight in weights.items()}
    save_file(other, base / "models" / "diffusion_models" / "other_expert.safetensors")
    prompt = two_halves(prompt_of({"quality": "fast"}))
    prompt["42"] = copy.deepcopy(prompt["1"])
    prompt["42"]["inputs"]["unet_name"] = "other_expert.safetensors"
    prompt["40"]["inputs"]["model"] = ["42", 0]
    prompt["7"]["inputs"]["noise_seed"] = 2
    assert [found["settings"]["learned"] for found in reports(server, prompt)] == ["learning", "learning"]
    assert len(profiles()) == 2
    prompt["7"]["inputs"]["noise_seed"] = 3
    known = reports(server, prompt)
    assert [found["settings"]["learned"] for found in known] == ["yes", "yes"]
    assert len({found["settings"]["profile"] for found in known}) == 2


def test_bad_input_is_refused(server):
    with pytest.raises(Exception, match="speedup"):
        server.run(prompt_of({"speedup": 20.0}))


def reports(client, prompt):
    return [message["data"]["report"] for message in client.run(prompt) if message["type"] == "femo.report"]


def two_halves(prompt):
    """The prompt's sampler in two, with a node of its own for the second, "40"."""
    prompt["40"] = copy.deepcopy(prompt["2"])
    sampler = {key: value for key, value in prompt["7"]["inputs"].items() if key not in ("seed", "denoise")}
    common = {"noise_seed": 1, "add_noise": "enable", "start_at_step": 0, "end_at_step": 8,
              "return_with_leftover_noise": "enable"}
    prompt["7"] = {"class_type": "KSamplerAdvanced", "inputs": sampler | common}
    prompt["41"] = {"class_type": "KSamplerAdvanced", "inputs": sampler | common | {
        "model": ["40", 0], "latent_image": ["7", 0], "add_noise": "disable", "start_at_step": 8, "end_at_step": 10000,
        "return_with_leftover_noise": "disable"}}
    prompt["8"]["inputs"]["samples"] = ["41", 0]
    return prompt
