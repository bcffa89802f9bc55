"""Every family that ComfyUI can sample, small and with random weights, at every site that it has.

`make compatibility` also measures how near they come to the full run, and makes docs/compatibility.md of it.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack, contextmanager

import compatibility
import pytest
import torch
from comfy_host import (
    PACK,
    Replayed,
    RunCounter,
    accelerated,
    attach_module,
    calibration_file,
    copies,
    distance,
    families,
    femo_core,
    identity,
    leftovers,
    memory,
    run_module,
    site_choice,
    sites,
)
from small_images import IMAGES
from small_models import available, build, parts_of, possible, sample
from small_videos import VIDEOS

SITES = ("output", "hidden", "module")
MODELS = [small for small in (*IMAGES, *VIDEOS) if available(small)]
INTERVAL = 3


@pytest.fixture(scope="module", params=MODELS, ids=lambda small: small.name.replace(" ", "-"))
def small(request):
    return request.param


@pytest.fixture(scope="module")
def model(small):
    return build(small)


@pytest.fixture(scope="module")
def guided(small, model):
    """A short run with guidance."""
    result = sample(small, model, steps=4, cfg=3.0)
    assert torch.isfinite(result).all()
    return result


def sites_of(model):
    network = model.model.diffusion_model
    return [site for site in SITES if sites.SITES[site].features(network, families.find_family(network))]


def test_a_full_run_is_recorded_as_it_is_and_the_next_goes_by_it(small, model, guided, tmp_path, monkeypatch, reports):
    monkeypatch.setattr(calibration_file, "folder", lambda: tmp_path)
    recorder = sys.modules[f"{PACK}.nodes.run.recorder"].Recorder("this one")
    assert torch.equal(sample(small, recorder.attach(model), steps=4, cfg=3.0), guided)
    assert calibration_file.read("this one").model == identity.fingerprint(model.model)
    sample(small, attach_module.attach(model, attach_module.CacheConfig(
        femo_core.TaylorSeer(1), femo_core.Schedule(2), site="output", calibration="this one", budget=3)),
        steps=4, cfg=3.0)
    assert len(reports[0].full_steps) == 3
    assert reports[0].warnings == ()


def test_interval_one_is_bit_equal(small, model, guided):
    """At one site: nothing is taken at any (test_flux.py tries all)."""
    ours = accelerated(model, interval=1, site=sites_of(model)[-1])
    assert torch.equal(sample(small, ours, steps=4, cfg=3.0), guided)


def test_the_network_runs_on_the_schedules_steps_only(small, model, reports):
    for site in sites_of(model):
        with RunCounter(model) as runs:
            result = sample(small, accelerated(model, femo_core.TaylorSeer(1), INTERVAL, site=site), steps=7)
        report = reports[-1]
        assert runs.count == 4, site
        assert (report.full_steps, report.settings["site"], report.warnings) == ((0, 1, 2, 5), site, ())
        assert torch.isfinite(result).all(), site
        assert leftovers(model) == []


if compatibility.WANTED:
    def test_how_near_it_comes_to_the_full_run(small, model):
        full, fewer = sample(small, model), sample(small, model, steps=6)  # of 12 steps 6 are full
        assert torch.isfinite(full).all()
        for site in sites_of(model):
            results = [sample(small, accelerated(model, femo_core.TaylorSeer(order), INTERVAL, site=site))
                       for order in (1, 0)]
            for part in ("", *parts_of(small, full)):
                exact, *others = (parts_of(small, one)[part] if part else one for one in (full, *results, fewer))
                compatibility.keep(compatibility.Seen(
                    small.name, site, *(distance(other, exact) for other in others), part))


def test_guidance_and_batches(small, model, reports):
    for site in sites_of(model)[1:] or ["output"]:  # in which a family has no part
        result = sample(small, accelerated(model, femo_core.FeMo(1, gamma=0.01), INTERVAL, site=site), cfg=3.0, batch=2,
                        steps=7)
        assert torch.isfinite(result).all(), site
        assert reports[-1].full_steps == (0, 1, 2, 5), site  # β adapts at 5
        assert {len(row["beta"]) for row in reports[-1].betas} == {possible(small, 3.0, 2)[1]}, site  # one an image


def test_replaying_recorded_features_is_the_full_step(small, model, monkeypatch):
    """With the true features in the forecast's place, a predicted step is the full step.

    Of the embedders that it passes by nothing is used: NaN stands in for what they return.
    """
    network, seen, ran = model.model.diffusion_model, [], []
    family, original = families.find_family(network), type(model.model)._apply_model
    monkeypatch.setattr(
        sites.embedders, "_empty", lambda like: like and torch.full(like.shape, torch.nan, dtype=like.dtype))

    def replayed(self, *args, **kwargs):
        options = kwargs.pop("transformer_options") if "transformer_options" in kwargs else args[5]
        for site in map(sites.SITES.get, sites_of(model)):
            captured, embedders, needless = {}, sites.Embedders(), site.needless(family)
            with site.recording(network, family, copies(captured)), embedders.noted(network, needless):
                recorded = original(self, *args[:5], dict(options), *args[6:], **kwargs)
            with (site.substituting(network, family, dict(options), Replayed(captured)) as substituted,
                  embedders.passed_by(network, needless), noting_what_runs(network, needless, ran)):
                seen.append((recorded, original(self, *args[:5], substituted, *args[6:], **kwargs)))
        return recorded

    monkeypatch.setattr(type(model.model), "_apply_model", replayed)
    sample(small, model, steps=2)
    assert len(seen) >= 2 * len(sites_of(model))
    for recorded, again in seen:
        torch.testing.assert_close(again, recorded, rtol=1e-4, atol=1e-4)
        assert torch.equal(again, recorded) or "MiniMax" not in small.name
    assert ran == []


@contextmanager
def noting_what_runs(network, paths, ran):
    """Which of the innermost modules at or below the paths compute while it is open."""
    def note(name, leaf):
        if "forward" not in vars(leaf):  # nothing stands in for it
            ran.append(name)

    with ExitStack() as stack:
        for name, leaf in network.named_modules():
            if not [*leaf.children()] and any(f"{name}.".startswith(f"{path}.") for path in paths):
                hook = leaf.register_forward_hook(lambda leaf, *_, name=name: note(name, leaf))
                stack.callback(hook.remove)
        yield


@contextmanager
def without(network, path):
    """While open, the module at the path is not there."""
    parent, _, name = path.rpartition(".")
    modules = network.get_submodule(parent)._modules
    before = dict(modules)
    del modules[name]
    try:
        yield
    finally:
        modules.clear()
        modules.update(before)  # in their order


def test_a_model_has_all_parts_that_its_family_is_known_by_and_without_one_goes_to_output(model):
    """A class that another pack or a newer host has changed has the same name."""
    network = model.model.diffusion_model
    family = families.find_family(network)
    assert family.lacks == ()
    for path in family.parts:
        with without(network, path):
            found = families.find_family(network)
            assert path in found.lacks
            assert not found.heads + found.blocks + found.embedders + found.modules
            site, why = site_choice._available("hidden", network, found, {})
            assert (site, found.lacks[0] in why) == ("output", True)
            assert site_choice._available("output", network, found, {}) == ("output", "")
    assert families.find_family(network) == family


@pytest.mark.parametrize("path", [
    "chroma_radiance.model.ChromaRadiance", "minimax_music.dit.MiniMaxMusic3DiT", "seedvr.model.NaDiT",
    "cascade.stage_b.StageB", "cascade.stage_c.StageC", "trellis2.model.Trellis2",
])
def test_one_that_is_at_output_only_says_why(path):
    module, name = path.rsplit(".", 1)
    kind = getattr(pytest.importorskip(f"comfy.ldm.{module}", reason="this ComfyUI does not have it"), name)
    network = kind.__new__(kind)
    family = families.find_family(network)
    assert family.at_output
    assert dataclasses.replace(family, at_output="") == families.Family(family.name, family.matches)
    site, why = site_choice._available("hidden", network, family, {})
    assert (site, why) == ("output", f"{family.name}: {family.at_output}")


def test_without_a_branch_it_is_known_but_for_site_module(model):
    network = model.model.diffusion_model
    family = families.find_family(network)
    for blocks in family.modules:
        for i, branch in enumerate(blocks.branches):
            last = len(network.get_submodule(blocks.path)) - 1
            path = f"{blocks.path}.{i and last}.{branch}"
            with without(network, path):
                found = families.find_family(network)
                assert found == dataclasses.replace(family, modules=(), lacks=(path,))
                site, why = site_choice._available("module", network, found, {})
                assert (site, path in why) == ("hidden", True)


def test_embedders_that_are_lacking_in_some_are_needless_where_they_are(model):
    family = families.find_family(model.model.diffusion_model)
    assert not any(path.endswith("?") for path in family.needless)
    assert len(set(family.needless)) == len(family.needless) == len(family.embedders)
    assert family.image_embedder in ("", *family.parts)


# Models that add tokens of their own, which the shapes of latents and prompts do not tell.
ADDS_TOKENS = {
    "Z-Image Omni": 1.3, "Wan 2.2 S2V": 1.4, "Wan SCAIL": 1.3, "Wan SCAIL 2": 1.3,
    "HunyuanVideo image to video, reference latent": 1.4,
}


def test_what_other_packs_models_call_a_patch_does_not_matter():
    """Their estimate may be off, their run may not fail."""
    tokens = memory._tokens
    for patch in (None, 0, 2.0, (2, 2, 2, 2), "2", [None], True):
        network = type("Network", (), {"patch_size": patch})()
        for shape in ((1, 4, 8, 8), (1, 4), (1, 4, 10), (1, 16, 3, 8, 8)):
            assert tokens(network, families.Family("?"), shape) >= 1


def test_the_memory_expected_is_near_what_the_cache_takes(small, model, monkeypatch):
    """Before the run by shapes alone, after the first evaluation by what the network gave."""
    needed = []
    choice = run_module.SiteChoice
    settle = choice._settle
    monkeypatch.setattr(choice, "_settle",
                        lambda self, sizes, *args: (needed.append(dict(sizes)), settle(self, sizes, *args)))
    if "FLUX.2" in small.name:
        small = dataclasses.replace(small, text=(512, small.text[1]))  # to which the host pads what is shorter
    sample(small, accelerated(model, site="module"), cfg=3.0, steps=5)
    expected, measured = needed
    assert list(expected) == list(measured)
    for site, size in measured.items():
        if site == "output":
            assert size == expected[site]
        else:
            assert 0.9 <= size / expected[site] <= ADDS_TOKENS.get(small.name, 1.1), site
