"""Flux in ComfyUI's own sampling, at every site."""

from __future__ import annotations

import functools
import inspect
import logging

import pytest
import torch
from comfy_host import (
    OTHER_CACHES,
    Breaks,
    Replayed,
    RunCounter,
    accelerated,
    attach_module,
    comfy,
    copies,
    distance,
    families,
    femo_core,
    leftovers,
    run_module,
    sites,
    tensor_bytes,
    with_other_cache,
)
from small_flux import VARIANTS, build_flux, conditioning
from small_flux import sample as sample_small

sample = functools.partial(sample_small, size=(16, 16))  # what is kept and what ControlNets give counts here
SITES = ("hidden", "module", "output")
PREDICTORS = {
    "taylorseer": femo_core.TaylorSeer(2),
    "femo": femo_core.FeMo(1),
    "adapted": femo_core.FeMo(1, gamma=0.01),
    "fitted": femo_core.FeMo(1, beta=0.0, beta_min=-0.6, beta_max=0.9, adaptation="least_squares"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("site", SITES)
def test_interval_one_is_bit_equal(variant, site):
    model = build_flux(variant)
    plain = sample(model, variant=variant, cfg=2.0, steps=6)
    assert torch.isfinite(plain).all()
    assert torch.equal(sample(accelerated(model, interval=1, site=site), variant=variant, cfg=2.0, steps=6), plain)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("variant", "kind"), [
    *(("dev", kind) for kind in PREDICTORS), *((variant, "adapted") for variant in VARIANTS if variant != "dev")])
def test_the_network_runs_on_the_schedules_steps_only(variant, site, kind, reports):
    model = build_flux(variant)
    with RunCounter(model) as runs:
        result = sample(accelerated(model, PREDICTORS[kind], site=site), variant=variant)
    expected = femo_core.Schedule(3, 3).full_steps(12)
    assert runs.count == len(expected)
    assert reports[0].full_steps == expected
    assert (reports[0].network_runs, reports[0].network_runs_saved) == (len(expected), 12 - len(expected))
    assert torch.isfinite(result).all()
    assert 0 < distance(result, sample(model, variant=variant)) < 0.5  # random weights: a bound on nonsense only
    assert leftovers(model) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replaying_recorded_features_is_bit_equal(variant, site, dtype):
    """With the true features in the forecast's place, a predicted step is the full step."""
    model = build_flux(variant, dtype).model
    network, place = model.diffusion_model, sites.SITES[site]
    family = families.find_family(network)
    x = torch.randn(2, network.in_channels // 4, 16, 16).to(dtype)
    inputs = {"context": torch.randn(2, 4, 64).to(dtype), "y": torch.zeros(2, 32, dtype=dtype),
              "guidance": torch.full((2,), 3.0)}
    if variant == "kontext":
        inputs["ref_latents"] = [torch.randn(2, 16, 16, 16).to(dtype)]
    captured = {}
    with torch.inference_mode():
        plain = network(x.clone(), torch.full((2,), 0.5), transformer_options={}, **inputs)
        with place.recording(network, family, copies(captured)):
            recorded = network(x.clone(), torch.full((2,), 0.5), transformer_options={}, **inputs)
        assert set(captured) == set(place.features(network, family))
        with place.substituting(network, family, {}, Replayed(captured)) as options:
            replayed = network(x.clone(), torch.full((2,), 0.5), transformer_options=options, **inputs)
    assert torch.equal(recorded, plain)
    assert torch.equal(replayed, plain)


def test_module_features_are_those_of_the_papers_but_for_the_text_of_double_blocks():
    """(Which nothing in the image depends on: replaying without them is bit-equal, above.)"""
    model = build_flux().model.diffusion_model
    names = sites.SITES["module"].features(model, families.find_family(model))
    assert names == (
        *(f"double_blocks.{i}.{m}" for i in range(2) for m in ("img_attn.proj", "img_mlp")),
        *(f"single_blocks.{i}.linear2" for i in range(3)),
    )


@pytest.mark.parametrize("site", SITES)
def test_guidance_streams_in_one_call_and_in_two_agree(flux, site, reports, monkeypatch):
    together = sample(accelerated(flux, PREDICTORS["adapted"], site=site), cfg=3.0)
    assert (reports[0].network_runs, reports[0].network_runs_saved) == (6, 6)
    monkeypatch.setattr(type(flux.model), "memory_required", lambda *_args, **_kwargs: 1e18)  # low VRAM: one at a time
    apart = sample(accelerated(flux, PREDICTORS["adapted"], site=site), cfg=3.0)
    assert (reports[1].network_runs, reports[1].network_runs_saved) == (12, 12)
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-3)


def test_prompts_of_unequal_length(flux, reports):
    long = conditioning(2, tokens=9)
    assert torch.isfinite(sample(accelerated(flux), cfg=3.0, negative=long)).all()
    assert (reports[0].network_runs, reports[0].network_runs_saved) == (12, 12)


def test_samples_of_a_batch_are_as_alone(flux):
    model = accelerated(flux, PREDICTORS["adapted"])
    both = sample(model, batch=2)
    alone = sample(model, batch=1)
    torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sigmas", [
    [1.0, 0.8, 0.8, 0.6, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0],
    [1.0, 0.8, 0.9, 0.7, 0.8, 0.5, 0.3, 0.2, 0.1, 0.0],
    [1.0, 0.0],
    [0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1],
])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_sigmas_given_by_hand(flux, sigmas, sampler, reports):
    levels = torch.tensor(sigmas)
    plain = sample(flux, sigmas=levels, sampler=sampler)
    result = sample(accelerated(flux), sigmas=levels, sampler=sampler)
    assert distance(result, plain) < 0.5
    assert set(reports[0].full_steps) >= set(femo_core.Schedule(3, 3).full_steps(len(sigmas) - 1))
    if sampler == "euler":
        assert reports[0].full_steps == femo_core.Schedule(3, 3).full_steps(len(sigmas) - 1)
    assert reports[0].flops_speedup < 2.5  # no more than the schedule gives
    assert torch.equal(sample(accelerated(flux, interval=1), sigmas=levels, sampler=sampler), plain)


class AddsControl(comfy.controlnet.ControlBase):
    """A ControlNet that adds a constant, as a real one does, at the block inputs that the host gives it."""

    runs = 0

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options=None):
        if self.timestep_range is not None and (
                t[0] > self.timestep_range[0] or t[0] < self.timestep_range[1]):
            return None
        AddsControl.runs += 1
        shift = torch.linspace(-1, 1, 128).expand(x_noisy.shape[0], 64, 128)
        return {"input": [shift, shift], "output": [shift]}

    def copy(self):
        copied = AddsControl()
        self.copy_to(copied)
        return copied


def with_control(start, end):
    positive = conditioning(1)
    control = AddsControl().set_cond_hint(torch.zeros(1, 3, 64, 64), 1.0, (start, end))
    positive[0][1]["control"] = control
    positive[0][1]["control_apply_to_uncond"] = False
    return positive


@pytest.mark.parametrize("site", SITES)
def test_a_controlnet_that_ends_in_mid_run_makes_full_steps(flux, site, reports):
    """What was recorded with it must not be forecast from without it: the change would be extrapolated."""
    through = with_control(0.0, 1.0)
    part = with_control(0.0, 0.5)
    assert distance(sample(flux, positive=through), sample(flux)) > 0.01
    assert distance(sample(accelerated(flux, site=site), positive=through), sample(flux, positive=through)) < 0.5
    assert reports[0].network_runs == 6
    sample(accelerated(flux, site=site), positive=part)
    assert reports[1].network_runs > 6
    switch = [step for step in reports[1].full_steps if step not in reports[0].full_steps]
    assert switch
    assert leftovers(flux) == []


@pytest.mark.parametrize(("site", "expected"), [("hidden", 6), ("output", 6), ("module", 12)])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_controlnet_runs_where_its_features_are_used(flux, site, expected, cfg, reports, monkeypatch):
    def run():
        AddsControl.runs = 0
        positive = with_control(0.0, 1.0)
        negative = conditioning(2)
        negative[0][1]["control"] = positive[0][1]["control"]  # shared, so that both prompts go in one call
        return sample(accelerated(flux, site=site), positive=positive, negative=negative, cfg=cfg), AddsControl.runs

    deferred, runs = run()
    assert (runs, reports[0].network_runs) == (expected, 6)
    monkeypatch.setattr(attach_module, "with_deferred_controls", lambda conds: conds)
    always, all_runs = run()
    assert all_runs == 12
    assert torch.equal(deferred, always)


def area(seed, **box):
    positive = conditioning(seed)
    positive[0][1]["area"] = (box["height"], box["width"], box["y"], box["x"])
    return positive


def timed(seed, start, end):
    positive = conditioning(seed)
    positive[0][1] |= {"start_percent": start, "end_percent": end}
    return positive


@pytest.fixture
def calls(monkeypatch):
    """The streams of every network call, by step."""
    seen = []
    original = femo_core.ForecastSession.begin_call

    def spy(session, streams, names):
        planned = original(session, streams, names)
        seen.append((session.step, tuple(streams), planned))
        return planned

    monkeypatch.setattr(femo_core.ForecastSession, "begin_call", spy)
    return seen


def streams_by_step(calls):
    by_step = {}
    for step, streams, _ in calls:
        by_step.setdefault(step, []).extend(streams)
    return by_step


def test_area_prompts_share_a_uuid_with_their_opposite_but_no_stream(flux, calls, reports):
    left, right = area(1, height=16, width=8, y=0, x=0), area(3, height=16, width=8, y=0, x=8)
    sample(accelerated(flux), positive=conditioning(5) + left + right, cfg=3.0)
    for streams in streams_by_step(calls).values():
        assert len(set(streams)) == len(streams) > 2
        assert len({stream[0] for stream in streams}) < len(streams)  # the uuids alone are not unique
        assert {stream[-1] for stream in streams} == {0}  # and nothing had to be told apart by its order
    assert len({frozenset(streams) for streams in streams_by_step(calls).values()}) == 1
    assert reports[0].full_steps == femo_core.Schedule(3, 3).full_steps(12)


def test_a_prompt_that_starts_late_gets_its_own_warmup(flux, calls, reports):
    positive = timed(1, 0.0, 0.5) + timed(3, 0.5, 1.0)
    result = sample(accelerated(flux), positive=positive, steps=20)
    assert distance(result, sample(flux, positive=positive, steps=20)) < 0.5
    first = {stream: step for step, streams, _ in reversed(calls) for stream in streams}
    assert len(first) == 2
    for stream, start in first.items():
        kinds = [planned for _, streams, planned in calls if stream in streams]
        assert not any(kinds[:3]), start
        assert any(kinds)


def test_skip_layer_guidance_calls_again_under_the_same_uuid(flux, calls, reports):
    slg = pytest.importorskip("comfy_extras.nodes_slg")
    node = slg.SkipLayerGuidanceDiT
    run = node.execute if hasattr(node, "execute") else node().skip_guidance
    patched = run(model=flux, double_layers="1", single_layers="0", scale=3.0, start_percent=0.0, end_percent=1.0)
    patched = (patched.result if hasattr(patched, "result") else patched)[0]
    result = sample(accelerated(patched), cfg=3.0)
    assert distance(result, sample(patched, cfg=3.0)) < 0.5
    for streams in streams_by_step(calls).values():
        assert len(set(streams)) == len(streams) == 3
        assert len({stream[0] for stream in streams}) == 2
        assert {stream[-1] for stream in streams} == {0}
    assert reports[0].full_steps == femo_core.Schedule(3, 3).full_steps(12)


def test_an_inpainting_mask(flux, reports):
    generator = torch.Generator().manual_seed(1)
    noise, latent = torch.randn(2, 1, 16, 16, 16, generator=generator)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1.0

    def run(model):
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 12, 1.0, "euler", "simple", conditioning(1), conditioning(2), latent, noise_mask=mask,
                disable_pbar=True, seed=1)

    plain, result = run(flux), run(accelerated(flux))
    torch.testing.assert_close(result[..., :7], plain[..., :7], rtol=1e-3, atol=1e-3)  # what is kept
    assert distance(result, plain) < 0.5
    assert reports[0].network_runs == 6


def test_part_of_a_schedule(flux, reports):
    sample(accelerated(flux), steps=20, denoise=0.5)
    sample(accelerated(flux), steps=20, start_step=5, last_step=15)
    assert [report.total_steps for report in reports] == [20, 10]
    assert reports[1].full_steps == femo_core.Schedule(3, 3).full_steps(10)


def test_after_another_resolution_the_next_run_is_as_fresh(flux):
    model = accelerated(flux, PREDICTORS["adapted"], site="module")
    first = sample(model)
    sample(model, size=(24, 16))
    sample(model, batch=3)
    assert torch.equal(sample(model), first)


def second_single(model):
    """In the middle of a run."""
    return model.model.diffusion_model.single_blocks[1].linear1


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("error", [comfy.model_management.InterruptProcessingException(), RuntimeError("out of luck")])
def test_after_an_interrupt_the_next_run_is_as_fresh(site, at, error):
    flux = build_flux()
    model = accelerated(flux, PREDICTORS["adapted"], site=site)
    fresh = sample(accelerated(build_flux(), PREDICTORS["adapted"], site=site))
    options = repr(model.model_options)
    with Breaks(second_single(flux), error, at), pytest.raises(type(error)):
        sample(model)
    assert leftovers(flux) == []
    assert repr(model.model_options) == options
    assert torch.equal(sample(model), fresh)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("interrupted", [False, True])
def test_no_tensor_stays_behind(flux, site, interrupted):
    sample(flux)
    model = accelerated(flux, PREDICTORS["adapted"], site=site)
    before = tensor_bytes()
    if interrupted:
        with Breaks(second_single(flux), comfy.model_management.InterruptProcessingException(), 4), pytest.raises(
                comfy.model_management.InterruptProcessingException):
            sample(model)
    else:
        sample(model)
    assert tensor_bytes() == before


def test_the_session_is_gone_after_the_run(flux, monkeypatch):
    sessions = []
    original = femo_core.ForecastSession

    def remembered(*args, **named):
        sessions.append(original(*args, **named))
        return sessions[-1]

    monkeypatch.setattr(run_module, "ForecastSession", remembered)
    sample(accelerated(flux, site="module"))
    assert sessions[0].report(0.0).cache_bytes > 0
    assert sessions[0].cache.nbytes == 0


def test_the_log_says_what_is_reserved_and_what_was_done(flux, caplog):
    caplog.set_level(logging.INFO, "femo")
    sample(accelerated(flux))
    lines = [record.message for record in caplog.records if record.name == "femo"]
    # 2 buffers of 64 tokens · 128 · 4 bytes
    assert lines[0] == "FeMo Cache: about 0.1 MB reserved for the cache at site hidden"
    assert lines[1].startswith(
        "FeMo Cache: 6 full and 6 forecast of 12 steps, 6 network runs, 6 saved (2.00x fewer), ")
    assert len(lines) == 2


# Bytes that the cache of the small Flux takes at order 1: 64 image tokens, joined with 4 of text in its single blocks.
MODULE, HIDDEN = 2 * (2 * 2 * 64 + 3 * 68) * 128 * 4, 2 * 64 * 128 * 4


@pytest.mark.parametrize(("total", "site"), [(1e12, "module"), (4 * HIDDEN, "hidden"), (10, "output")])
def test_a_cache_that_can_not_fit_is_a_smaller_one_from_the_start(flux, total, site, caplog, reports, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_, **__: total)
    monkeypatch.setattr(type(flux.model), "memory_required", lambda *_args, **_kwargs: 0)
    result = sample(accelerated(flux, site="module"))
    assert reports[0].settings["site"] == site
    assert torch.equal(result, sample(accelerated(flux, site=site)))
    said = [record.message for record in caplog.records if "more than can be there" in record.message]
    assert len(said) == (site != "module")


@pytest.mark.parametrize(("free", "site"), [(1e12, "module"), (2 * HIDDEN, "hidden"), (0, "output")])
def test_where_the_cache_does_not_fit_there_is_a_smaller_one(flux, free, site, caplog, reports, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_free_memory",
                        lambda _=None, torch_free_too=False: (free, free) if torch_free_too else free)
    monkeypatch.setattr(type(flux.model), "memory_required", lambda *_args, **_kwargs: 0)
    result = sample(accelerated(flux, site="module"))
    assert reports[0].settings["site"] == site
    assert reports[0].full_steps == femo_core.Schedule(3, 3).full_steps(12)
    assert torch.equal(result, sample(accelerated(flux, site=site)))
    said = [record.message for record in caplog.records if "more than is free" in record.message]
    assert len(said) == (site != "module")


@pytest.mark.parametrize(("cache_device", "reserved"), [("gpu", MODULE), ("cpu", 0)])
def test_the_host_is_told_of_the_memory_before_it_loads_the_model(flux, cache_device, reserved, monkeypatch):
    """Of a cache in main memory it need not know; here the load device is main memory too, and only looks different."""
    asked, load = [], comfy.model_management.load_models_gpu
    monkeypatch.setattr(comfy.model_management, "load_models_gpu",
                        lambda *args, **kwargs: (asked.append(kwargs), load(*args, **kwargs)))
    monkeypatch.setattr(run_module.Room, "__init__", told_apart(run_module.Room.__init__, cache_device))
    model = attach_module.attach(flux, attach_module.CacheConfig(
        femo_core.TaylorSeer(1), femo_core.Schedule(3, 3), site="module", cache_device=cache_device))
    sample(flux)
    sample(model)
    plain, ours = asked
    for kind in ("memory_required", "minimum_memory_required"):
        assert ours[kind] - plain[kind] == reserved
    assert "memory_required" not in vars(flux.model)


def told_apart(init, device):
    def told_apart(room, *args):
        init(room, *args)
        room.shared = device == "gpu"
    return told_apart


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_cache_in_main_memory_gives_the_same(flux, site, kind):
    def run(device):
        return sample(attach_module.attach(flux, attach_module.CacheConfig(
            PREDICTORS[kind], femo_core.Schedule(3, 3), site=site, cache_device=device)), cfg=2.0)

    assert torch.equal(run("cpu"), run("gpu"))


@pytest.mark.parametrize(("arguments", "steps", "why"), [
    ({"interval": 1}, 12, "interval is 1"),
    ({"warmup": 20}, 12, "all 12 steps fall into the warm-up (20)"),
    ({}, 2, "all 2 steps fall into the warm-up (3)"),
])
def test_the_log_line_says_why_nothing_was_skipped(flux, caplog, arguments, steps, why):
    caplog.set_level(logging.INFO, "femo")
    plain = sample(flux, steps=steps)
    assert torch.equal(sample(accelerated(flux, **arguments), steps=steps), plain)
    assert f"nothing skipped: {why}" in caplog.records[-1].message


@pytest.mark.parametrize("other", OTHER_CACHES)
@pytest.mark.parametrize("ours_first", [False, True])
def test_another_cache_on_the_model_is_left_alone(flux, other, ours_first, caplog, reports):
    def add_other(model):
        return with_other_cache(model, other)

    both = add_other(accelerated(flux)) if ours_first else accelerated(add_other(flux))
    assert torch.equal(sample(both), sample(add_other(flux)))
    warnings = [record.message for record in caplog.records if record.name == "femo"]
    assert len(warnings) == 1
    assert "not accelerated" in warnings[0]
    assert reports[0].network_runs_saved == 0
    assert reports[0].reason in warnings[0]


UnknownKind = type("UnknownKind", (torch.nn.Module,), dict(vars(comfy.ldm.flux.model.Flux)))  # in no family's file


@pytest.mark.parametrize("site", SITES)
def test_a_model_of_an_unknown_kind_is_forecast_at_its_output(site, caplog, reports):
    flux = build_flux()
    flux.model.diffusion_model.__class__ = UnknownKind
    sample(accelerated(flux, site=site))
    assert reports[0].settings["site"] == "output"
    assert (reports[0].network_runs, reports[0].network_runs_saved) == (6, 6)
    said = [record.message for record in caplog.records if record.name == "femo" and record.levelname == "WARNING"]
    assert len(said) == (site != "output")
    assert all(f"at site output instead of {site}: UnknownKind is not known well enough" in text for text in said)


def deaf_to_replacements(network, from_call=1):
    """A forward in the network's place that ignores block replacements, from one call on."""
    original, calls = network.forward_orig, []

    def deaf(*args, **kwargs):
        calls.append(1)
        call = inspect.signature(original).bind(*args, **kwargs)
        if len(calls) >= from_call:
            call.arguments["transformer_options"] = {**call.arguments["transformer_options"], "patches_replace": {}}
        return original(*call.args, **call.kwargs)

    return deaf


def test_blocks_that_another_pack_keeps_running_are_said(flux, caplog, reports, monkeypatch):
    """The picture is the full run's, but nothing is saved. So nothing may stand in for what the blocks take."""
    monkeypatch.setattr(sites.embedders, "_empty", lambda like: torch.full(like.shape, torch.nan, dtype=like.dtype))
    network = flux.model.diffusion_model
    sample(accelerated(flux, site="module"))
    monkeypatch.setattr(network, "forward_orig", deaf_to_replacements(network, from_call=5), raising=False)
    torch.testing.assert_close(sample(accelerated(flux, site="module")), sample(flux))
    assert (reports[0].network_runs_saved, reports[1].network_runs_saved) == (6, 0)
    assert len([record for record in caplog.records if "blocks ran on a forecast step" in record.message]) == 1


def test_a_forward_that_keeps_its_blocks_running_is_served_elsewhere(flux, caplog, reports, monkeypatch):
    network = flux.model.diffusion_model
    full = sample(flux)
    monkeypatch.setattr(network, "forward_orig", deaf_to_replacements(network), raising=False)
    assert distance(sample(accelerated(flux, site="module")), full) < 0.6
    assert (reports[0].settings["site"], reports[0].full_steps) == ("hidden", (0, 1, 2, 5, 8, 11))
    assert len([record for record in caplog.records if "has changed this model" in record.message]) == 1


def test_the_last_of_two_cache_nodes_counts(flux, reports):
    sample(accelerated(accelerated(flux, interval=6), femo_core.FeMo(1), interval=3))
    assert len(reports) == 1
    assert reports[0].settings["interval"] == 3
    assert reports[0].settings["predictor"] == "FeMo"


def test_a_nan_is_said(flux, caplog):
    def spoil(_module, args):
        spoil.left -= 1
        if spoil.left == 0:
            args[0][0, 0, 0] = float("nan")

    spoil.left = 3
    handle = flux.model.diffusion_model.final_layer.register_forward_pre_hook(spoil)
    try:
        sample(accelerated(flux))
    finally:
        handle.remove()
    assert len([record for record in caplog.records if "NaN or infinity" in record.message]) == 1


def test_the_original_model_is_not_touched(flux):
    before = repr(flux.model_options), repr(flux.wrappers)
    sample(accelerated(flux))
    assert (repr(flux.model_options), repr(flux.wrappers)) == before


def test_other_block_replacements_work_on_full_steps_and_are_kept(flux):
    calls = []

    def patch(args, extra):
        calls.append(1)
        return extra["original_block"](args)

    model = flux.clone()
    model.set_model_patch_replace(patch, "dit", "double_block", 1)
    plain = sample(flux)
    calls.clear()
    patched = accelerated(model)
    result = sample(patched)
    assert len(calls) == 6
    assert distance(result, plain) < 0.5
    assert patched.model_options["transformer_options"]["patches_replace"]["dit"].keys() == {("double_block", 1)}


@pytest.mark.parametrize("site", ["hidden", "module"])
def test_embedders_that_only_blocks_need_run_until_blocks_are_seen_to_rest(flux, site):
    ran = []
    handle = flux.model.diffusion_model.pe_embedder.register_forward_hook(
        lambda module, *_: ran.append("forward" not in vars(module)))
    try:
        sample(accelerated(flux, site=site))
    finally:
        handle.remove()
    assert ran == [True, True, True, True, False, True, False, False, True, False, False, True]
