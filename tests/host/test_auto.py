"""FeMo Auto: the first run of a model is full and teaches it, later ones go by its profile."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from unittest import mock

import pytest
import small_models
import torch
from comfy_host import PACK, Breaks, RunCounter, comfy, distance, femo_core, leftovers
from small_flux import build_flux, sample
from small_images import IMAGES
from small_videos import VIDEOS

auto_node = sys.modules[f"{PACK}.nodes.auto"]
auto_run = sys.modules[f"{PACK}.nodes.run.auto"]
learned = sys.modules[f"{PACK}.nodes.learned.auto"]
profiles = sys.modules[f"{PACK}.nodes.learned.profiles"]
recorder = sys.modules[f"{PACK}.nodes.run.recorder"]
folder_paths = sys.modules["folder_paths"]
STEPS = 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where profiles are, in this test."""
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    monkeypatch.setattr(learned, "_unlearnable", {})
    return tmp_path / "default" / "femo_profiles"


@pytest.fixture
def said(monkeypatch):
    """What the node says in the browser."""
    found = []
    monkeypatch.setattr(auto_run, "say", lambda text, node_id: found.append(text))
    return found


def auto(model, quality="balanced", speedup=2.0, learn="once", enabled=True, **others):
    node = auto_node.FeMoAuto.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "3"})
    return node.execute(model=model, enabled=enabled, quality=quality, speedup=speedup, learn=learn, **others).result[0]


def run(model, **settings):
    return sample(model, **{"steps": STEPS, **settings})


def only(folder):
    (path,) = folder.glob("*.json")
    return femo_core.Profile.from_json(path.read_bytes())


# Learning

@pytest.mark.parametrize("settings", [
    {}, {"cfg": 3.0}, {"cfg": 3.0, "batch": 2}, {"sampler": "dpmpp_2m"}, {"sampler": "heun"},
    {"sampler": "euler_ancestral"}])
def test_the_first_run_is_that_without_the_node_and_the_second_as_announced(flux, folder, reports, said, settings):
    model, plain = auto(flux), run(flux, **settings)
    assert torch.equal(run(model, **settings), plain)
    assert reports[0].network_runs_saved == 0
    assert reports[0].settings["learned"] == "learning"
    assert "teaches" in reports[0].reason
    assert said[0].startswith(f"learned from {STEPS} steps")
    assert leftovers(flux) == []
    with RunCounter(flux) as runs:
        result = run(model, **settings)
    assert runs.count == reports[1].network_runs
    assert reports[1].settings["learned"] == "yes"
    assert (folder / reports[1].settings["profile"]).is_file()
    assert reports[1].network_runs_saved > 0 or "too little" in reports[1].reason
    assert distance(result, plain) < 0.2


def test_what_was_learned_serves_other_settings(flux, reports, folder):
    run(auto(flux))
    others = [
        {"steps": 12}, {"steps": 30}, {"sampler": "dpmpp_2m"}, {"scheduler": "beta"}, {"size": (16, 24)}, {"cfg": 4.0},
        {"seed": 5}, {"batch": 2}, {"steps": 8}, {"denoise": 0.5, "latent": torch.randn(1, 16, 8, 8)}]
    for settings in others:
        run(auto(flux), **settings)
        assert reports[-1].settings["learned"] == "yes", settings
        assert reports[-1].network_runs_saved > 0, settings
    assert len(only(folder).recordings) == 1


def one_row_at_a_time(model):
    """As where memory is short: the prompt and its opposite in a call each."""
    def wrapper(executor, network, *args, **kwargs):
        with mock.patch.object(network, "memory_required", return_value=1e30):
            return executor(network, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key("calc_cond_batch", "short of memory", wrapper)
    return model


def test_both_prompts_in_one_call_or_in_two(flux, reports, folder):
    """What either way teaches serves the other."""
    for teacher, pupil in ((flux, one_row_at_a_time(flux)), (one_row_at_a_time(flux), flux)):
        run(auto(teacher), cfg=3.0)
        taught = reports[-1]
        with RunCounter(flux) as runs:
            result = run(auto(pupil, "fast"), cfg=3.0)
        assert (taught.settings["learned"], reports[-1].settings["learned"]) == ("learning", "yes")
        assert {taught.network_runs, reports[-1].network_runs + reports[-1].network_runs_saved} == {STEPS, 2 * STEPS}
        assert runs.count == reports[-1].network_runs
        assert reports[-1].network_runs_saved
        assert distance(result, run(flux, cfg=3.0)) < 0.2
        for path in folder.iterdir():
            path.unlink()


def test_a_run_in_the_midst_does_not_spoil_the_profile(flux, reports, folder):
    """Image to image is learned as what it is; a whole run is learned in addition, and serves both."""
    part = {"denoise": 0.4, "latent": torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))}
    model = auto(flux)
    for settings, state in ((part, "learning"), (part, "yes"), ({}, "learning"), ({}, "yes"), (part, "yes")):
        run(model, **settings)
        assert reports[-1].settings["learned"] == state
    assert [one.sigmas[0] > 0.99 for one in only(folder).recordings] == [False, True]


def test_samplers_that_draw_noise_anew_have_a_recording_of_their_own(flux, reports, folder):
    model = auto(flux)
    for sampler, state in (("euler_ancestral", "learning"), ("euler", "learning"), ("dpmpp_2m", "yes"),
                           ("dpmpp_2s_ancestral", "yes")):
        run(model, sampler=sampler)
        assert (sampler, reports[-1].settings["learned"]) == (sampler, state)
    assert [one.stochastic for one in only(folder).recordings] == [True, False]


@pytest.mark.parametrize(("name", "draws"), [
    ("euler", False), ("heun", False), ("dpmpp_2m", False), ("res_multistep", False), ("uni_pc", False),
    ("dpm_fast", False), ("euler_ancestral", True), ("dpmpp_2m_sde", True), ("lcm", True), ("ddpm", True)])
def test_which_samplers_draw_noise(name, draws):
    assert recorder.draws_noise(comfy.samplers.sampler_object(name)) is draws


def test_a_sampler_that_can_not_teach_is_said_once_and_a_rule_serves(flux, reports, said, folder):
    """It runs the model at levels of its own."""
    model = auto(flux)
    run(model, sampler="dpm_fast", steps=12)
    assert "nothing was learned of this model" in said[0]
    run(model, sampler="dpm_fast", steps=12)
    assert reports[1].settings["learned"] == "no"
    assert "nothing is learned" in reports[1].warnings[0]
    assert not folder.exists()
    run(model)
    assert reports[2].settings["learned"] == "learning"


def test_a_run_that_was_stopped_or_failed_leaves_no_profile(flux, folder, reports):
    part = flux.model.diffusion_model.single_blocks[0].linear1
    for error in (comfy.model_management.InterruptProcessingException(), RuntimeError("out of memory")):
        with Breaks(part, error, STEPS), pytest.raises(type(error)):
            run(auto(flux))
        assert not folder.exists()
        assert leftovers(flux) == []
    run(auto(flux))
    assert reports[-1].settings["learned"] == "learning"


def test_beside_what_may_skip_steps_nothing_is_learned(flux, folder, reports):
    model = flux.clone()
    model.model_options["transformer_options"]["easycache"] = object()
    assert torch.equal(run(auto(model)), run(flux))
    assert not folder.exists()
    assert "EasyCache" in reports[0].reason


def test_a_model_whose_profile_can_not_be_looked_for_still_samples(flux, reports, folder, monkeypatch):
    """Of another pack, say, with weights of its own kind; or a folder that is not to be read."""
    def broken(*_):
        raise RuntimeError("these weights are not here")

    for name in ("fingerprint", "signature"):
        with monkeypatch.context() as patch:
            patch.setattr(profiles, name, broken)
            run(auto(flux))
        assert "RuntimeError: these weights are not here" in reports[-1].warnings[0]
        assert reports[-1].network_runs == 10
    assert not folder.exists()


def test_a_profile_that_can_not_be_kept_costs_no_picture(flux, reports, folder, monkeypatch, said):
    def broken(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(profiles, "write_whole", broken)
    assert torch.equal(run(auto(flux, learn="thorough")), run(flux))
    assert "the disk is full" in said[0]
    assert not [*folder.glob("*")]


# Profiles

def small(name, seed=0):
    found = next(one for one in (*IMAGES, *VIDEOS) if one.name == name)
    model = small_models.build(found)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.model.diffusion_model.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return found, model


def test_two_experts_of_one_shape_have_a_profile_each(folder, reports):
    """Wan 2.2: equal classes and shapes, other weights; each runs a part of the levels."""
    found, first = small("Wan 2.1 text to video")
    _, second = small("Wan 2.1 text to video", seed=1)
    for state in ("learning", "yes"):
        for expert in (first, second):
            small_models.sample(found, auto(expert), steps=STEPS)
            assert reports[-1].settings["learned"] == state
    assert len({report.settings["profile"] for report in reports}) == len([*folder.glob("*.json")]) == 2


@pytest.mark.parametrize("change", ["finetune", "LoRA", "float16", "fp8"])
def test_one_profile_serves_what_is_made_of_the_model(flux, folder, reports, change):
    run(auto(flux))
    model = flux.clone() if change == "LoRA" else build_flux(
        dtype={"float16": torch.float16, "fp8": torch.float8_e4m3fn}.get(change, torch.float32))
    if change == "LoRA":
        key = "diffusion_model.single_blocks.0.linear1.weight"
        model.add_patches({key: (0.01 * torch.ones_like(model.get_model_object(key)),)})
    if change == "finetune":
        for parameter in model.model.diffusion_model.parameters():
            parameter.mul_(1 + 0.05 * torch.randn(parameter.shape))
    if change == "fp8":  # a CPU can't run it as it is here
        assert profiles.find(model.model).profile
    else:
        run(auto(model))
        assert reports[-1].settings["learned"] == "yes"


def test_another_architecture_has_its_own(flux, folder, reports):
    run(auto(flux))
    sample(auto(build_flux("schnell")), variant="schnell", steps=STEPS)
    assert reports[-1].settings["learned"] == "learning"
    assert len([*folder.glob("*.json")]) == 2


def test_a_profile_that_diffusers_has_learned_serves(flux, folder, reports):
    """Given the name that the model's has here. What is learned in addition joins it."""
    run(auto(flux))
    (path,) = folder.glob("*.json")
    theirs = dataclasses.replace(only(folder), model="diffusers: FluxTransformer2DModel, 0123456789ab", signature=())
    path.write_text(theirs.to_json())
    run(auto(flux), steps=12)
    assert reports[-1].settings["learned"] == "yes"
    run(auto(flux), sampler="euler_ancestral")
    assert (only(folder).model, len(only(folder).recordings)) == (theirs.model, 2)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"version": 9}', b"null"])
def test_a_damaged_file_is_put_aside_and_the_model_learned_anew(flux, folder, reports, content):
    run(auto(flux))
    (path,) = folder.glob("*.json")
    good = only(folder)
    path.write_bytes(content)
    run(auto(flux))
    assert reports[-1].settings["learned"] == "learning"
    assert "is kept as" in reports[-1].warnings[0]
    assert (folder / f"{path.stem}.damaged").read_bytes() == content
    assert only(folder).model == good.model
    run(auto(flux))
    assert reports[-1].settings["learned"] == "yes"
    assert reports[-1].warnings == ()


def test_a_file_that_is_deleted_is_forgotten(flux, folder, reports):
    run(auto(flux))
    next(folder.glob("*.json")).unlink()
    run(auto(flux))
    assert reports[-1].settings["learned"] == "learning"


def test_one_that_comes_with_the_pack_serves_before_anything_is_learned(flux, folder, reports, tmp_path, monkeypatch):
    run(auto(flux))
    shipped = tmp_path / "shipped"
    folder.rename(shipped)
    monkeypatch.setattr(profiles, "SHIPPED", shipped)
    run(auto(flux))
    assert reports[-1].settings["learned"] == "yes"
    assert reports[-1].network_runs_saved > 0
    assert not folder.exists()


def test_it_holds_no_picture_and_is_small(flux, folder):
    run(auto(flux))
    (path,) = folder.glob("*.json")
    assert path.stat().st_size < 20_000
    assert set(json.loads(path.read_text())) == {"version", "model", "recordings", "signature"}


def test_calibrations_and_profiles_are_one_format(flux, folder, reports):
    run(auto(flux))
    (path,) = folder.glob("*.json")
    calibrations = folder.parent / "femo_calibrations"
    calibrations.mkdir()
    (calibrations / "mine.json").write_bytes(path.read_bytes())
    attach = sys.modules[f"{PACK}.nodes.run.attach"]
    run(attach.attach(flux, attach.CacheConfig(
        femo_core.TaylorSeer(1), femo_core.Schedule(3), calibration="mine", budget=7)))
    assert reports[-1].settings["calibration"] == "mine"
    assert len(reports[-1].full_steps) == 7
    assert reports[-1].warnings == ()


# What is asked for

def test_higher_quality_takes_more_full_steps_and_changes_less(flux, reports):
    run(auto(flux))
    plain = run(flux)
    results = [run(auto(flux, quality)) for quality in ("high", "balanced", "fast")]
    runs = [report.network_runs for report in reports[1:]]
    changes = [distance(result, plain) for result in results]
    assert runs == sorted(runs, reverse=True)
    assert changes == sorted(changes)
    for report, aim in zip(reports[1:], (0.02, 0.05, 0.10), strict=True):
        assert report.settings["expected_change"] <= aim or report.network_runs == 16  # 1.2-fold


@pytest.mark.parametrize(("speedup", "runs"), [(1.5, 13), (2.0, 10), (4.0, 5), (8.0, 3)])
def test_by_speed_up(flux, reports, speedup, runs):
    run(auto(flux))
    run(auto(flux, "by speed-up", speedup))
    assert reports[-1].network_runs == runs or "expected to do worse than fewer steps" in reports[-1].reason


@pytest.mark.parametrize(("settings", "runs"), [
    ({}, 10), ({"quality": "high"}, 13), ({"quality": "fast"}, 7), ({"quality": "by speed-up", "speedup": 4.0}, 5)])
def test_learn_off_goes_by_the_number_of_steps(flux, folder, reports, settings, runs):
    run(auto(flux, learn="off", **settings))
    assert reports[0].network_runs == runs
    assert not folder.exists()


@pytest.mark.parametrize("learn", ["once", "off"])
def test_four_steps_and_fewer_are_left_alone_with_a_reason(flux, folder, reports, learn):
    for steps in (1, 2, 4):
        assert torch.equal(run(auto(flux, learn=learn), steps=steps), run(flux, steps=steps))
        assert "has none to spare" in reports[-1].reason
    assert not folder.exists()


@pytest.mark.parametrize("quality", ["high", "balanced", "fast"])
def test_eight_steps_without_a_profile_never_skip_two_in_a_row(flux, reports, quality):
    run(auto(flux, quality, learn="off"), steps=8)
    predicted = reports[0].predicted_steps
    assert 4 <= reports[0].network_runs <= 6
    assert all(after - before > 1 for before, after in itertools.pairwise(predicted))


def test_switched_off_the_model_passes_through(flux):
    assert auto(flux, enabled=False) is flux


@pytest.mark.parametrize(("settings", "words"), [
    ({"quality": "best"}, "quality must be one of high, balanced, fast"),
    ({"quality": "by speed-up", "speedup": 20.0}, "speedup must be 1.2 … 8"),
    ({"learn": "twice"}, "learn must be one of once, thorough, off"), ({"site": "top"}, "site must be one of")])
def test_bad_input_is_named(flux, settings, words):
    with pytest.raises(ValueError, match=words):
        auto(flux, **settings)


# Thorough

def test_thorough_tries_out_once_and_gives_the_full_picture(flux, folder, reports, said):
    model, plain = auto(flux, learn="thorough"), run(flux, cfg=3.0)
    assert torch.equal(run(model, cfg=3.0), plain)
    assert len(reports) == 1
    assert any("network runs, as many as" in text for text in said)
    (recording,) = only(folder).recordings
    assert leftovers(flux) == []
    with RunCounter(flux) as runs:
        result = run(model, cfg=3.0)
    assert runs.count == reports[1].network_runs
    tried = next(one for one in recording.tried if one.steps == reports[1].full_steps)
    assert distance(result, plain) == pytest.approx(tried.change, rel=1e-3)


def test_an_interrupt_while_trying_out_costs_nothing(flux, folder, reports, said):
    part, plain = flux.model.diffusion_model.single_blocks[0].linear1, run(flux)
    with Breaks(part, comfy.model_management.InterruptProcessingException(), STEPS + 25):
        assert torch.equal(run(auto(flux, learn="thorough")), plain)
    assert "trying out was interrupted" in said
    assert len(only(folder).recordings[0].tried) == 1
    run(auto(flux, learn="thorough"))
    assert reports[-1].settings["learned"] == "yes"


# The guard

def test_a_run_that_is_far_from_what_was_learned_has_more_full_steps(flux, reports):
    """The model becomes another one after the first step."""
    run(auto(flux))
    run(auto(flux, "by speed-up"))
    block = flux.model.diffusion_model.single_blocks[-1]
    model, calls = auto(flux, "by speed-up"), []

    def other(_module, _args, output):
        calls.append(1)
        return 20 * torch.randn_like(output) if len(calls) > 1 else output

    handle = block.register_forward_hook(other)
    try:
        run(model)
    finally:
        handle.remove()
    assert reports[2].network_runs > reports[1].network_runs
    assert "times as far off as this model's profile expects" in reports[2].warnings[0]
    assert reports[1].warnings == ()
