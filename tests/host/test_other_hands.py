"""Networks that other packs run, change or put another in the place of: each by a stand-in of our own.

docs/company.md says which packs they are, and how their own code was tried.
"""

from __future__ import annotations

import copy
import pickle
import sys
from types import MethodType
from unittest import mock

import pytest
import torch
from comfy_host import PACK, RunCounter, accelerated, distance, femo_core, leftovers
from small_flux import build_flux, sample
from test_auto import auto, folder, only, run, said  # noqa: F401 (fixtures)
from test_calibrate import calibrating, recorded, shown  # noqa: F401 (a fixture)

obstacles = sys.modules[f"{PACK}.nodes.run.obstacles"]
FULL = (0, 1, 2, 5, 8, 11)
SITES = ("hidden", "module", "output")
KIND = type(build_flux().model.diffusion_model)


def with_wrapper(model, wrapper):
    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


# Model function wrappers that skip nothing

def passes_on(model):
    return lambda apply, call: apply(call["input"], call["timestep"], **call["c"])


def changes_the_options(model):
    """As DyPE does for its positions."""
    def wrapper(apply, call):
        options = {**call["c"]["transformer_options"], "level": float(call["timestep"].max())}
        return apply(call["input"], call["timestep"], **{**call["c"], "transformer_options": options})
    return wrapper


def tile_by_tile(model):
    """As Tiled Diffusion does: the calls share one dict of options, in which some networks leave notes for their
    blocks."""
    def wrapper(apply, call):
        halves = [apply(half, call["timestep"], **call["c"]) for half in call["input"].chunk(2, dim=-1)]
        return torch.cat(halves, dim=-1)
    return wrapper


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", [passes_on, changes_the_options, tile_by_tile])
def test_beside_a_wrapper_that_skips_nothing_it_accelerates(flux, kind, site, reports):
    model = with_wrapper(flux, kind(flux))
    for cfg in (1.0, 2.0):
        full = sample(model, cfg=cfg)
        assert torch.equal(sample(accelerated(model, interval=1, site=site), cfg=cfg), full)
        result = sample(accelerated(model, site=site), cfg=cfg)
        assert reports[-1].full_steps == FULL
        assert reports[-1].warnings == ()
        assert reports[-1].network_runs_saved == reports[-1].network_runs
        assert distance(result, full) < 0.6
        assert leftovers(flux) == []
    if kind is not tile_by_tile:
        assert torch.equal(result, sample(accelerated(flux, site=site), cfg=cfg))


def test_the_wrapper_is_still_there_afterwards(flux):
    wrapper = passes_on(flux)
    model = accelerated(with_wrapper(flux, wrapper))
    sample(model)
    assert model.model_options["model_function_wrapper"] is wrapper


def test_what_watches_a_wrapper_is_copied_and_pickled_as_that(flux):
    seen = []
    model = accelerated(with_wrapper(flux, len)).clone()
    model.model_options["model_function_wrapper"] = passes_on(flux)
    model.set_model_sampler_post_cfg_function(
        lambda args: (seen.append(copy.deepcopy(args["model_options"]["model_function_wrapper"])), args["denoised"])[1])
    sample(model)
    assert {type(one) for one in seen} == {obstacles.WatchedWrapper}
    watched = obstacles.WatchedWrapper(len, flux.model.diffusion_model, None, print)
    assert copy.deepcopy(watched) is copy.copy(watched) is watched
    assert pickle.loads(pickle.dumps(watched)) is len
    assert len(pickle.dumps(watched)) < 100


def test_a_run_beside_it_is_learned_from(flux, folder, reports, shown):  # noqa: F811
    model = with_wrapper(flux, passes_on(flux))
    assert torch.equal(run(auto(model)), run(flux))
    run(auto(model))
    assert reports[-1].network_runs_saved
    assert only(folder)
    sample(calibrating(model))
    assert recorded("dit").runs == 1


# Those that may skip

def puts_another_in_its_place(model):
    """As TeaCache does."""
    network = model.model.diffusion_model
    own = network.forward_orig

    def wrapper(apply, call):
        with mock.patch.object(network, "forward_orig", lambda *args, **kwargs: own(*args, **kwargs)):
            return apply(call["input"], call["timestep"], **call["c"])
    return wrapper, "changes forward_orig"


def puts_other_blocks_there(model):
    """As WaveSpeed does."""
    network = model.model.diffusion_model

    def wrapper(apply, call):
        with mock.patch.object(network, "double_blocks", torch.nn.ModuleList(network.double_blocks)):
            return apply(call["input"], call["timestep"], **call["c"])
    return wrapper, "changes double_blocks"


def leaves_out_the_network(model):
    """On every second step from the first on."""
    last = []

    def wrapper(apply, call):
        if not last:
            last.append(apply(call["input"], call["timestep"], **call["c"]))
            return last[0]
        return last.pop()
    return wrapper, "did not run the network"


def leaves_out_blocks(model):
    """Of those that a forward of its own knows nothing of."""
    network = model.model.diffusion_model
    calls = []

    def wrapper(apply, call):
        calls.append(1)
        if len(calls) % 2:
            return apply(call["input"], call["timestep"], **call["c"])
        blocks = network.double_blocks, network.single_blocks
        held = [[*part] for part in blocks]
        for part in blocks:
            part._modules.clear()
        try:
            return apply(call["input"], call["timestep"], **call["c"])
        finally:
            for part, ours in zip(blocks, held, strict=True):
                part.extend(ours)
    return wrapper, "left out the network's blocks"


SKIPS = [puts_another_in_its_place, puts_other_blocks_there, leaves_out_the_network, leaves_out_blocks]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", SKIPS)
def test_beside_one_that_may_skip_it_steps_aside(flux, kind, site, reports):
    result = sample(accelerated(with_wrapper(flux, kind(flux)[0]), site=site))
    assert torch.equal(result, sample(with_wrapper(flux, kind(flux)[0])))
    assert kind(flux)[1] in reports[-1].reason
    assert "remove one of the two" in reports[-1].reason
    assert len(reports[-1].warnings) == 1
    assert leftovers(flux) == []


@pytest.mark.parametrize("kind", SKIPS)
def test_beside_one_that_may_skip_nothing_is_learned(flux, kind, folder, reports, said, shown):  # noqa: F811
    for node, lines in ((auto, said), (calibrating, shown)):
        result = sample(node(with_wrapper(flux, kind(flux)[0])))
        assert torch.equal(result, sample(with_wrapper(flux, kind(flux)[0])))
        assert kind(flux)[1] in lines[-1]
    assert not folder.exists()
    run(auto(flux))
    assert reports[-1].settings["learned"] == "learning"  # once the other is gone


def test_one_that_begins_to_skip_in_mid_run_ends_the_acceleration(flux, reports):
    """What was forecast until then stays; nothing is forecast from what the other made."""
    calls = []

    def wrapper(apply, call):
        calls.append(apply(call["input"], call["timestep"], **call["c"]) if len(calls) < 6 else calls[-1])
        return calls[-1]

    sample(accelerated(with_wrapper(flux, wrapper)))
    assert reports[-1].full_steps == (0, 1, 2, 5)  # the others were not computed by anybody
    assert reports[-1].predicted_steps == (3, 4)
    assert "from here on" in reports[-1].warnings[0]


def test_tiles_that_move_are_named(flux, reports):
    class SpotDiffusion:
        def __call__(self, apply, call):
            return apply(call["input"], call["timestep"], **call["c"])

    model = with_wrapper(flux, SpotDiffusion())
    assert torch.equal(sample(accelerated(model)), sample(flux))
    assert "SpotDiffusion" in reports[-1].reason


# Networks of another class, or with a forward of another pack's

class Alike(KIND):
    """Does what its base does, in its own way."""

    def forward_orig(self, *args, **kwargs):
        return super().forward_orig(*args, **kwargs)


class GoesByPlaces(KIND):
    """Needs each of its blocks by its place."""

    def forward_orig(self, *args, **kwargs):
        assert isinstance(self.double_blocks[0], torch.nn.Module)
        return super().forward_orig(*args, **kwargs)


class AddsBehindTheHead(KIND):
    """Something of its blocks passes the head by."""

    def forward_orig(self, *args, **kwargs):
        passed = []
        with self.img_passes(passed):
            result = super().forward_orig(*args, **kwargs)
        return result + (10 * torch.stack(passed).mean(0) if passed else 0.0)

    def img_passes(self, passed):
        return mock.patch.object(self.double_blocks[0], "forward", self.noting(self.double_blocks[0].forward, passed)) \
            if len(self.double_blocks) else mock.MagicMock()

    def noting(self, forward, passed):
        def noted(*args, **kwargs):
            img, txt = forward(*args, **kwargs)
            passed.append(img.mean(-1, keepdim=True))
            return img, txt
        return noted


SERVED = [Alike]
NOT_SERVED = [GoesByPlaces, AddsBehindTheHead]


def by_object_patch(model, kind):
    """As RES4LYF does: the class is another from when the model is loaded on, until other patches are wanted."""
    model = model.clone()
    model.add_object_patch("diffusion_model.__class__", kind)
    return model


def by_class(model, kind):
    model.model.diffusion_model.__class__ = kind
    return model


def by_forward(model, kind):
    """As NAG does: on the instance."""
    network = model.model.diffusion_model
    method = MethodType(lambda self, *args, **kwargs: swapped(self, kind, *args, **kwargs), network)
    network.forward_orig = method
    return model


def swapped(network, kind, *args, **kwargs):
    own, network.__class__ = network.__class__, kind
    try:
        return kind.forward_orig(network, *args, **kwargs)
    finally:
        network.__class__ = own


WAYS = [by_object_patch, by_class, by_forward]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("way", WAYS)
def test_a_class_that_does_the_same_is_served(way, site, reports):
    wanted = sample(accelerated(build_flux(), site=site), cfg=2.0)
    model = way(build_flux(), Alike)
    for _ in range(2):
        assert torch.equal(sample(accelerated(model, site=site), cfg=2.0), wanted)
        assert reports[-1].settings["site"] == site
        assert reports[-1].settings["model"] == "Flux"
        assert reports[-1].warnings == ()
    if way is by_class:
        with RunCounter(model) as runs:
            sample(accelerated(model, site=site))
        assert runs.count == len(FULL)
        assert leftovers(model) == []


@pytest.mark.parametrize("kind", NOT_SERVED)
@pytest.mark.parametrize("way", WAYS)
def test_one_that_does_not_is_served_at_output(way, kind, reports):
    model = way(build_flux(), kind)
    full = sample(model)
    assert torch.equal(sample(accelerated(model, interval=1)), full)
    assert distance(sample(accelerated(model)), full) < 0.6
    assert reports[-1].settings["site"] == "output"
    assert reports[-1].full_steps == FULL
    assert any("has changed this model" in warning for warning in reports[-1].warnings)


def test_a_model_of_a_known_class_is_not_tried(flux, monkeypatch):
    trial = sys.modules[f"{PACK}.nodes.run.call"]
    monkeypatch.setattr(trial, "Trial", None)
    sample(accelerated(flux))


def test_what_can_not_be_compared_does_not_pass():
    trial = sys.modules[f"{PACK}.nodes.sites.trial"].Trial()
    trial.keep("a", torch.ones(2))
    assert trial.passes(torch.ones(2), lambda: trial.of("a"))
    assert not trial.passes(torch.ones(2), lambda: 1.1 * trial.of("a"))
    assert not trial.passes(torch.ones(2), lambda: trial.of("a") * float("nan"))
    assert not trial.passes(torch.ones(2), lambda: trial.of("b"))
    with pytest.raises(KeyboardInterrupt):
        trial.passes(torch.ones(2), mock.Mock(side_effect=KeyboardInterrupt))


def test_an_interrupt_while_it_is_tried_ends_the_run():
    model, calls = by_class(build_flux(), Alike), []
    interrupt = sys.modules["comfy.model_management"].InterruptProcessingException

    def stops(*_):
        calls.append(1)
        if len(calls) == 2:
            raise interrupt

    handle = model.model.diffusion_model.final_layer.register_forward_pre_hook(stops)
    try:
        with pytest.raises(interrupt):
            sample(accelerated(model))
    finally:
        handle.remove()
    assert leftovers(model) == []
    assert femo_core
