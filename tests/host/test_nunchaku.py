"""Nunchaku's Flux, Qwen-Image and Z-Image, by the stand-ins of small_nunchaku.py.

The real ones need CUDA and were not run: this shows that the families fit models of its layout.
"""

from __future__ import annotations

import pytest
import torch
from comfy_host import accelerated, distance, families, femo_core, leftovers, site_choice
from small_models import available, build, sample
from small_nunchaku import STAND_INS
from small_nunchaku_flux import LAYERS, RAN, NunchakuFluxTransformerBlocks, load, plain
from test_families import (  # noqa: F401 (what is so of every family)
    guided,
    test_a_full_run_is_recorded_as_it_is_and_the_next_goes_by_it,
    test_a_model_has_all_parts_that_its_family_is_known_by_and_without_one_goes_to_output,
    test_guidance_and_batches,
    test_interval_one_is_bit_equal,
    test_replaying_recorded_features_is_the_full_step,
    test_the_memory_expected_is_near_what_the_cache_takes,
)

FULL = femo_core.Schedule(3, 3).full_steps(12)
HERE = {name: of for name, of in STAND_INS.items() if available(of[0])}


@pytest.fixture(scope="module", params=HERE, ids=lambda name: name.replace(" ", "-"))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def small(name):
    return HERE[name][0]


@pytest.fixture(scope="module")
def full(small, model):
    result = sample(small, model)
    assert torch.isfinite(result).all()
    return result


@pytest.fixture(scope="module")
def model(name):
    return made(name)


def made(name):
    small, change = HERE[name]
    model = build(small)
    change(model)
    return model


def ran_in(run):
    """What it gives, and how many blocks ran."""
    RAN.clear()
    return run(), len(RAN)


def test_it_is_known(name, model):
    network = model.model.diffusion_model
    family = families.find_family(network)
    assert family.name == {"F": "Nunchaku Flux", "Q": "Nunchaku Qwen-Image", "Z": "Lumina2"}[name[0]]
    assert family.lacks == ()
    assert site_choice._available("hidden", network, family, {}) == ("hidden", "")
    assert site_choice._available("module", network, family, {})[0] == "hidden"


@pytest.mark.parametrize("site", ["hidden", "output"])
def test_blocks_run_on_full_steps_only_and_nothing_stays(small, model, full, site, reports):
    before = leftovers(model), {path: [*module._modules] for path, module in model.model.named_modules()}
    again, all_blocks = ran_in(lambda: sample(small, model))
    assert torch.equal(again, full)
    result, blocks = ran_in(lambda: sample(small, accelerated(model, site=site)))
    assert blocks * 12 == all_blocks * len(FULL)
    report = reports[-1]
    assert (report.full_steps, report.settings["site"], report.warnings) == (FULL, site, ())
    assert (report.network_runs, report.network_runs_saved) == (6, 6)
    assert distance(result, full) < 0.1
    assert (leftovers(model), {path: [*module._modules] for path, module in model.model.named_modules()}) == before
    assert torch.equal(sample(small, model), full)


def test_a_lora_that_is_composed_within_the_run_finds_the_blocks(reports):
    """It looks for them by their index on every step, forecast ones too."""
    small, model = HERE["Flux"][0], made("Flux")
    network, found = model.model.diffusion_model, []
    network.register_forward_pre_hook(lambda network, _: found.append(network.model.transformer_blocks[0].m))
    sample(small, accelerated(model))
    assert reports[-1].full_steps == FULL
    assert len(found) == 12


def test_its_own_cache_is_named_and_with_its_threshold_at_zero_gone(reports):
    small, model = HERE["Flux"][0], build(HERE["Flux"][0])
    full, all_blocks = ran_in(lambda: sample(small, made("Flux")))
    plain(model, 0.3)
    network = model.model.diffusion_model
    for _ in range(2):  # the second time its own module is in the blocks' place
        result, blocks = ran_in(lambda: sample(small, accelerated(model)))
        assert "Nunchaku's own cache" in reports[-1].reason
        assert "set cache_threshold" in reports[-1].reason
        assert (reports[-1].predicted_steps, reports[-1].network_runs_saved) == ((), 0)
        assert blocks < all_blocks
        assert torch.equal(sample(small, model), result)
        assert not torch.equal(result, full)
    load(network, 0)
    assert network.model.residual_diff_threshold_multi == 0.3  # which says nothing any more
    assert torch.equal(sample(small, model), full)
    result, blocks = ran_in(lambda: sample(small, accelerated(model)))
    assert (reports[-1].full_steps, reports[-1].reason) == (FULL, "")
    assert blocks == LAYERS * len(FULL)
    load(network, 0.3)
    sample(small, accelerated(model))
    assert "Nunchaku's own cache" in reports[-1].reason


def test_blocks_that_are_called_in_another_way_are_not_known(monkeypatch):
    def forward(self, img, txt, temb, image_rotary_emb):
        raise AssertionError

    network = made("Flux").model.diffusion_model
    monkeypatch.setattr(NunchakuFluxTransformerBlocks, "forward", forward)
    family = families.find_family(network)
    site, why = site_choice._available("hidden", network, family, {})
    assert site == "output"
    assert "has no encoder_hidden_states in NunchakuFluxTransformerBlocks" in why


def test_only_a_packs_class_of_that_name_is_it():
    network = made("Flux").model.diffusion_model
    other = type("ComfyFluxWrapper", (torch.nn.Module,), {"__module__": "own_wrappers.flux"})
    network.__class__ = other
    assert families.find_family(network) == families.Family("ComfyFluxWrapper")
