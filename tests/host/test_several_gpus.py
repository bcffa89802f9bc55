"""ComfyUI's own split of the work over several GPUs: a copy of the model and a thread for each, prompts shared out.

Tried with its thread pool on two devices that are both the CPU, which it takes for two.
"""

from __future__ import annotations

import threading

import pytest
import torch
from comfy_host import RunCounter, accelerated, femo_core, leftovers
from small_flux import build_flux, conditioning, sample

pytest.importorskip("comfy.multigpu", reason="this ComfyUI does not split its work")

SITES = ("hidden", "module", "output")
FULL = femo_core.Schedule(3, 3).full_steps(12)
ADAPTED = femo_core.FeMo(1, gamma=0.05)


@pytest.fixture(scope="module")
def models():
    """The same weights twice."""
    return build_flux(), build_flux()


def on_two_devices(model, copy):
    """As ComfyUI's node for it leaves a model; that asks for GPUs."""
    model = model.clone()
    other = model.clone(model_override=(copy.model, ({}, {}, {}, set())))
    other.load_device, other.is_multigpu_base_clone = torch.device("cpu:0"), True
    other.remove_additional_models("multigpu")
    model.set_additional_models("multigpu", [other])
    return model


@pytest.fixture
def threads(models):
    """Those in which a network ran."""
    seen = set()
    handles = [model.model.diffusion_model.register_forward_hook(lambda *_: seen.add(threading.get_ident()))
               for model in models]
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("cache_first", [True, False], ids=["cache, then split", "split, then cache"])
@pytest.mark.parametrize("site", SITES)
def test_two_devices_give_what_one_gives(models, threads, site, cache_first, reports):
    model, copy = models
    alone = sample(accelerated(model, ADAPTED, site=site), cfg=3.0)
    if cache_first:
        split = on_two_devices(accelerated(model, ADAPTED, site=site), copy)
    else:
        split = accelerated(on_two_devices(model, copy), ADAPTED, site=site)
    threads.clear()
    with RunCounter(model) as here, RunCounter(copy) as there:
        together = sample(split, cfg=3.0)
    assert len(threads) == 2
    assert threading.get_ident() not in threads
    assert (here.count, there.count) == (len(FULL), len(FULL))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    one, two = reports
    assert (two.network_runs, two.network_runs_saved) == (2 * one.network_runs, 2 * one.network_runs_saved)
    assert two.full_steps == one.full_steps == FULL
    assert sorted(row["beta"][0] for row in two.betas) == pytest.approx(sorted(row["beta"][0] for row in one.betas))


def test_interval_one_is_bit_equal_and_nothing_is_left_behind(models):
    model, copy = models
    plain = sample(on_two_devices(model, copy), cfg=3.0)
    assert torch.equal(sample(on_two_devices(accelerated(model, interval=1), copy), cfg=3.0), plain)
    for site in SITES:
        assert not torch.equal(sample(on_two_devices(accelerated(model, site=site), copy), cfg=3.0), plain), site
        assert leftovers(model) == leftovers(copy) == []


def test_many_prompts_on_two_devices_do_not_get_into_each_other(models, reports):
    """Ten runs, so that threads meet in every order: all alike, and every stream recorded and forecast."""
    positive = [*conditioning(1), *conditioning(2), *conditioning(3)]
    results = [sample(on_two_devices(accelerated(models[0], ADAPTED), models[1]), cfg=3.0, positive=positive)
               for _ in range(10)]
    for result, report in zip(results, reports, strict=True):
        torch.testing.assert_close(result, results[0], rtol=1e-4, atol=1e-4)
        assert report.full_steps == FULL
        assert report.warnings == ()
        assert len({row["stream"] for row in report.betas}) == 4


def test_an_error_on_one_device_leaves_nothing_behind(models):
    model, copy = models
    split = on_two_devices(accelerated(model), copy)
    expected = sample(split, cfg=3.0)
    ran = []

    def breaks(*_):
        ran.append(1)
        if len(ran) == 4:
            raise RuntimeError("out of memory")

    handle = copy.model.diffusion_model.double_blocks[0].register_forward_pre_hook(breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(split, cfg=3.0)
    handle.remove()
    assert leftovers(model) == leftovers(copy) == []
    assert torch.equal(sample(split, cfg=3.0), expected)
