"""Habits of other packs, each with a stand-in of our own for the code that has it.

docs/company.md says which packs they are, and how their own code was tried.
"""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import small_models
import torch
from comfy_host import PACK, accelerated, calibrate_node, comfy, distance, femo_core, leftovers
from small_flux import build_flux, conditioning, sample
from small_videos import VIDEOS

report_node = sys.modules[f"{PACK}.nodes.report"]
reporting = sys.modules[f"{PACK}.nodes.run.reporting"]
control = sys.modules[f"{PACK}.nodes.run.control"]
FULL = (0, 1, 2, 5, 8, 11)
LTXAV = next(small for small in VIDEOS if small.name == "LTX-2 video and audio")
SITES = ("hidden", "module", "output")


def check(make, run, reports, sites=SITES, full=FULL, near=0.6):
    """As without a node at interval 1; accelerated at 3; nothing left on the model. The plain result.

    make(model): what is sampled. run(model): samples it.
    """
    model = build_flux()
    plain = run(make(model))
    for site in sites:
        assert torch.equal(run(make(accelerated(model, interval=1, site=site))), plain), site
        result = run(make(accelerated(model, site=site)))
        assert reports[-1].full_steps == full, site
        assert distance(result, plain) < near, site
        assert leftovers(model) == []
    return plain


# What is copied

def copies_the_options(model):
    """As pre-CFG nodes do, on every step."""
    model = model.clone()
    model.set_model_sampler_post_cfg_function(
        lambda args: (copy.deepcopy(args["model_options"]), args["denoised"])[1])
    return model


def test_options_that_are_copied_deeply_in_a_run(reports):
    check(copies_the_options, sample, reports)


def test_what_others_can_reach_is_copied_and_pickled_without_the_network(flux):
    found = []

    def seen(args):
        options = args["model_options"]["transformer_options"]
        found.append((options["femo"], [*options["wrappers"]["predict_noise"]["femo_calibrate"],
                                        *options["wrappers"]["outer_sample"]["femo"]]))
        return args["denoised"]

    model = accelerated(calibrate(flux)).clone()
    model.set_model_sampler_post_cfg_function(seen)
    sample(model, steps=4)
    weights = sum(parameter.nbytes for parameter in flux.model.parameters())
    for own, wrappers in found:
        for thing in (own, *wrappers):
            assert len(pickle.dumps(copy.copy(thing))) < 5000 < weights
            assert copy.deepcopy(thing) == thing
            assert isinstance(pickle.loads(pickle.dumps(thing)), type(thing))
            assert len(repr(thing)) < 2000
        assert own.held is None  # what keeps it after the run keeps nothing of the run


@pytest.mark.parametrize("site", SITES)
def test_what_stands_in_for_blocks_is_copied_and_pickled_without_the_network(flux, site):
    sizes = []

    def wrapper(executor, *args, **kwargs):
        options = next(part for part in args if isinstance(part, dict) and "uuids" in part)
        replacements = copy.deepcopy(options.get("patches_replace", {}))
        sizes.append(len(pickle.dumps(replacements)))
        return executor(*args, **kwargs)

    model = accelerated(flux, site=site).clone()
    plain = sample(model)
    model.add_wrapper_with_key("diffusion_model", "other", wrapper)
    assert torch.equal(sample(model), plain)
    assert max(sizes) < 5000


def calibrate(model, name="peers"):
    node = calibrate_node.FeMoCalibrate.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "3"})
    return node.execute(model=model, enabled=True, name=name, average=False).result[0]


def test_a_controlnet_that_was_put_off_is_copied_and_pickled_without_it():
    class Network:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        __reduce__ = __deepcopy__

        def get_control(self, *arguments):
            return {"input": [1]}

    network = Network()
    (group,) = control.with_deferred_controls([[{"control": network}]])
    stand_in = group[0]["control"]
    deferred = stand_in.get_control(1, torch.ones(1), 3)
    assert copy.deepcopy([stand_in, deferred])[1].run() == {"input": [1]}
    assert copy.copy(stand_in).get_control(1, torch.ones(1), 3).run() == {"input": [1]}
    assert pickle.loads(pickle.dumps([stand_in, deferred]))[1] == {} == deferred
    assert pickle.loads(pickle.dumps(stand_in)).get_control(1, 2, 3) is None


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where calibrations are, in this test."""
    monkeypatch.setattr(sys.modules["folder_paths"], "get_user_directory", lambda: str(tmp_path))
    return tmp_path / "default" / "femo_calibrations"


# FeMo Report

def deep_copied(model):
    """All of a ModelPatcher but the network, as nodes do that put a LoRA into quantised weights."""
    return copy.deepcopy(model, {id(model.model): model.model})


def report_of(model):
    return report_node.FeMoReport.execute(model, after=None, save_json=False, filename_prefix="femo_report").result[0]


def test_the_report_of_a_model_that_was_copied_deeply_on_the_way(flux):
    model = accelerated(flux)
    sample(deep_copied(model))
    assert report_of(model).startswith("6 full and 6 forecast of 12 steps")


def test_without_a_report_the_prompt_goes_on(flux):
    """The cache node ran once more after the picture, since its result was no longer kept."""
    assert "there is no report" in report_of(accelerated(flux))


# What changes within a run

def timed_lora(keyframes=((0.0, 1.0), (0.4, 0.0))):
    """A LoRA of ComfyUI's own on a prompt, whose strength changes in mid-run."""
    hooks = comfy.hooks
    group = hooks.HookKeyframeGroup()
    for start, strength in keyframes:
        group.add(hooks.HookKeyframe(strength=strength, start_percent=start))
    hook = hooks.WeightHook(strength_model=1.0)
    hook.hook_keyframe, hook.need_weight_init = group, False
    generator = torch.Generator().manual_seed(4)
    hook.weights = {"diffusion_model.double_blocks.1.img_mlp.0.weight": (
        "diff", (2.0 * torch.randn(512, 128, generator=generator),))}
    found = hooks.HookGroup()
    found.add(hook)
    prompts = conditioning(1)
    return hooks.set_hooks_for_conditioning(prompts, found)


def run_timed_lora(model, keyframes=((0.0, 1.0), (0.4, 0.0)), **settings):
    return sample(model, positive=timed_lora(keyframes), steps=28, **settings)


@pytest.mark.parametrize("site", SITES)
def test_a_lora_that_ends_in_mid_run(flux, site, reports):
    plain = run_timed_lora(flux)
    assert not torch.equal(plain, run_timed_lora(flux, ((0.0, 1.0),)))
    assert torch.equal(run_timed_lora(accelerated(flux, interval=1, site=site)), plain)
    result = run_timed_lora(accelerated(flux, site=site))
    assert reports[-1].full_steps == (0, 1, 2, 5, 8, 11, 12, 13, 14, 17, 20, 23, 26)  # a warm-up from step 12 on
    (warning,) = reports[-1].warnings
    assert "a hook (a timed LoRA) changes in mid-run" in warning
    assert distance(result, plain) < distance(sample(flux, positive=timed_lora(), steps=13), plain)
    assert leftovers(flux) == []


def test_a_lora_whose_strength_fades_bit_by_bit_is_forecast_on(flux, reports):
    """Each of many keyframes would be a warm-up."""
    fade = tuple((i / 10, 1.0 - 0.05 * i) for i in range(10))
    plain = run_timed_lora(flux, fade)
    result = run_timed_lora(accelerated(flux), fade)
    assert reports[-1].full_steps == tuple(range(3)) + tuple(range(5, 28, 3))
    assert distance(result, plain) < distance(sample(flux, positive=timed_lora(fade), steps=11), plain)


class SkipsParts(comfy.samplers.CFGGuider):
    """Does without the video every second step, by switches that LTX-2 knows."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        shapes = self.conds["positive"][0]["model_conds"]["latent_shapes"].cond
        skipped = self.step % 2 == 1
        self.step += 1
        parts = comfy.utils.unpack_latents(x, shapes)
        if skipped:
            parts[0] = self.last
        options = model_options["transformer_options"]
        options |= {"run_vx": not skipped, "run_ax": True, "a2v_cross_attn": not skipped, "v2a_cross_attn": True}
        (result,) = comfy.samplers.calc_cond_batch(
            self.inner_model, [self.conds["positive"]], comfy.utils.pack_latents(parts)[0], timestep, model_options)
        parts = comfy.utils.unpack_latents(result, shapes)
        if skipped:
            parts[0] = self.last
        self.last = parts[0]
        return comfy.utils.pack_latents(parts)[0]


@pytest.mark.parametrize("site", ["hidden", "output"])
def test_parts_of_a_network_that_are_switched_off_every_second_step(site, reports):
    if not small_models.available(LTXAV):
        pytest.skip("no LTX-2 here")
    model = small_models.build(LTXAV)

    def run(model, steps=12):
        guider = SkipsParts(model)
        guider.step, guider.last = 0, None
        guider.set_conds(small_models.conditioning(LTXAV, 1), small_models.conditioning(LTXAV, 2))
        noise = small_models.noise(LTXAV)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        with torch.inference_mode():
            return small_models.packed(guider.sample(
                noise, noise * 0.0, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=1))

    plain = run(model)
    assert torch.equal(run(accelerated(model, interval=1, site=site)), plain)
    result = run(accelerated(model, interval=2, site=site))
    assert distance(result, plain) < 0.3 * distance(run(model, len(reports[-1].full_steps)), plain)
    assert len(reports[-1].predicted_steps) == reports[-1].network_runs_saved == 2  # with the video: each has a warm-up
    assert [warning.split()[0] for warning in reports[-1].warnings] == ["a2v_cross_attn", "run_vx"]
    assert leftovers(model) == []


# Guiders

class PastPredictNoise(comfy.samplers.CFGGuider):
    """As NAG's guider does it: the sampler's call goes straight to predict_noise."""

    def __call__(self, *args, **kwargs):
        return self.predict_noise(*args, **kwargs)


class PastTheHost(comfy.samplers.CFGGuider):
    """Calls the network by itself."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        cond = self.conds["positive"][0]["model_conds"]
        return self.inner_model.apply_model(
            x, timestep, transformer_options=model_options["transformer_options"],
            **{name: part.process_cond(batch_size=len(x)).cond for name, part in cond.items() if name in (
                "c_crossattn", "y", "guidance")})


class GivesTwo(comfy.samplers.CFGGuider):
    """As LanPaint's does it, with a sampler of its own that takes both."""

    def predict_noise(self, *args, **kwargs):
        return super().predict_noise(*args, **kwargs), None


def takes_two(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised, _ = model.inner_model(x, sigmas[i].expand(len(x)), model_options=extra_args["model_options"])
        if callback:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def guided(kind, sampler="euler", cfg=3.0, steps=12, sigmas=None):
    """Samples with a guider of this kind."""
    def run(model):
        guider = kind(model)
        guider.set_conds(conditioning(1), conditioning(2))
        guider.set_cfg(cfg)
        chosen = sampler if not isinstance(sampler, str) else comfy.samplers.sampler_object(sampler)
        levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            return guider.sample(
                noise, noise * 0.0, chosen, levels if sigmas is None else torch.tensor(sigmas), disable_pbar=True,
                seed=1)
    return run


@pytest.mark.parametrize(("sampler", "extra"), [("euler", ""), ("euler", "pag"), ("heun", "pag"), ("dpmpp_sde", "")])
def test_a_guider_that_goes_past_predict_noise(sampler, extra, reports):
    def make(model):
        if extra:
            model = model.clone()
            model.set_model_sampler_post_cfg_function(calls_once_more)
        return model

    run = guided(PastPredictNoise, sampler)
    check(make, run, reports, ("hidden", "output") if extra else SITES)  # at module what is replaced does not run
    as_told = guided(comfy.samplers.CFGGuider, sampler)
    model = build_flux()
    assert torch.equal(run(make(accelerated(model))), as_told(make(accelerated(model))))


def calls_once_more(args):
    """As perturbed-attention guidance does it: the same prompt, at the same level, with blocks of its own."""
    options = copy.copy(args["model_options"])
    options["transformer_options"] = {**options["transformer_options"], "patches_replace": {
        "dit": {("double_block", 0): lambda args, extra: {"img": args["img"], "txt": args["txt"]}}}}
    (perturbed,) = comfy.samplers.calc_cond_batch(
        args["model"], [args["cond"]], args["input"], args["sigma"], options)
    return args["denoised"] + 0.5 * (args["cond_denoised"] - perturbed)


def test_calibrate_says_that_a_guider_can_not_be_watched(flux, shown):
    run = guided(PastPredictNoise)
    assert torch.equal(run(calibrate(flux)), run(flux))
    assert "this guider goes past ComfyUI's PREDICT_NOISE" in shown[0]


def test_a_guider_that_calls_the_network_by_itself_is_said(reports):
    run = guided(PastTheHost)
    model = build_flux()
    plain = run(model)
    assert torch.equal(run(accelerated(model)), plain)
    assert "calls the network past ComfyUI" in reports[-1].reason
    assert reports[-1].network_runs == 12


def test_a_guider_that_gives_a_tuple(flux, shown, reports):
    run = guided(GivesTwo, comfy.samplers.KSAMPLER(takes_two))
    plain = run(flux)
    assert torch.equal(run(calibrate(flux)), plain)
    assert "gives the sampler a tuple instead of a latent" in shown[0]
    check(lambda model: model, run, reports)


def test_an_observer_never_fails(flux, shown, monkeypatch):
    recorder = sys.modules[f"{PACK}.nodes.run.recorder"]

    def fails(*_):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(recorder, "_why_not_full", fails)
    assert torch.equal(sample(calibrate(flux)), sample(flux))
    assert "on purpose" in shown[0]


@pytest.fixture
def shown(monkeypatch):
    """What FeMo Calibrate says in the browser."""
    said = []
    monkeypatch.setattr(sys.modules[f"{PACK}.nodes.run.recorder"], "show", lambda text, node_id: said.append(text))
    return said


# Samplers

def misleading(by, inner="euler"):
    """As Detail Daemon and Lying Sigma do it: the network is told another level than the sampler is at."""
    sampler = comfy.samplers.sampler_object(inner)

    def sample_misled(model, x, sigmas, **kwargs):
        def misled(x, sigma, **extra):
            return model(x, sigma * by(float(sigma.max())), **extra)

        misled.inner_model, misled.sigmas = model.inner_model, getattr(model, "sigmas", None)
        return sampler.sampler_function(misled, x, sigmas, **kwargs, **sampler.extra_options)

    return comfy.samplers.KSAMPLER(sample_misled)


WAYS = {
    "more": lambda sigma: 1.05,
    "less in the middle": lambda sigma: 0.93 if 0.3 < sigma < 0.9 else 1.0,
    "more in the middle": lambda sigma: 1.08 if 0.3 < sigma < 0.9 else 1.0}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("inner", "runs", "full"), [("euler", 6, 12)])
def test_samplers_that_tell_the_network_another_level(flux, way, inner, runs, full, reports):
    run = guided(comfy.samplers.CFGGuider, misleading(WAYS[way], inner), cfg=1.0)
    plain = run(flux)
    assert torch.equal(run(accelerated(flux, interval=1)), plain)
    result = run(accelerated(flux))
    assert reports[-1].full_steps == FULL
    assert reports[-1].predicted_steps == (3, 4, 6, 7, 9, 10)
    assert reports[-1].network_runs == runs
    assert reports[-1].network_runs_saved == full - runs
    assert distance(result, plain) < 0.6


@pytest.mark.parametrize(("sampler", "runs", "full"), [("euler", 6, 12), ("heun", 12, 24), ("dpm_2", 12, 24)])
def test_levels_that_rise_steadily(flux, sampler, runs, full, reports):
    """From a picture to its noise."""
    levels = [round(0.02 + 0.08 * step, 2) for step in range(13)]
    run = guided(comfy.samplers.CFGGuider, sampler, cfg=1.0, sigmas=levels)
    plain = run(flux)
    assert torch.equal(run(accelerated(flux, interval=1)), plain)
    run(accelerated(flux))
    assert reports[-1].full_steps == FULL
    assert (reports[-1].network_runs, reports[-1].network_runs_saved) == (runs, full - runs)


def test_one_run_for_each_step_is_said_once(flux, caplog):
    caplog.set_level("INFO", "femo")
    model = accelerated(flux)
    reporting._runs.clear()
    reporting._runs_of_a_step.clear()
    for step in range(5):
        sample(model, start_step=step, last_step=step + 1, force_full_denoise=False)
    said = [record for record in caplog.records if record.name == "femo" and "reserved" not in record.message]
    assert [record.levelname for record in said] == ["INFO", "WARNING"]
    assert "in a run of its own" in said[1].message


# What a session notices by its effect

def test_what_is_switched_within_a_patch_is_noticed_by_its_effect(flux, reports):
    """At site hidden; in the output it may not show."""
    level = []
    model = flux.clone()

    def predict(executor, x, timestep, *args, **kwargs):
        level[:] = [float(timestep.max())]
        return executor(x, timestep, *args, **kwargs)

    def after(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + 60.0} if level[0] > 0.7 else out

    model.add_wrapper_with_key("predict_noise", "level", predict)
    model.set_model_patch_replace(after, "dit", "double_block", 1)
    plain = sample(model, steps=28)
    assert torch.equal(sample(accelerated(model, interval=1), steps=28), plain)
    result = sample(accelerated(model), steps=28)
    assert [warning for warning in reports[-1].warnings if "far worse than the last feature" in warning]
    full = reports[-1].full_steps
    assert len(full) <= len(femo_core.Schedule(3, 3).full_steps(28)) + 3
    assert distance(result, plain) < distance(sample(model, steps=len(full)), plain)
    assert leftovers(flux) == []
