"""torch.compile beside the cache: of the whole model, of its blocks one by one, of one block by hand.

In one file, as it takes a process seconds to load.
"""

from __future__ import annotations

import pytest
import torch
from comfy_host import accelerated, leftovers
from small_flux import build_flux, sample

FULL = (0, 1, 2, 5, 8, 11)
SITES = ("hidden", "module", "output")


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("ours_first", [False, True])
def test_a_compiled_model_is_forecast_at_its_output(flux, site, ours_first, caplog, reports):
    torch_helpers = pytest.importorskip("comfy_api.torch_helpers")

    def compiled(model):
        model = model.clone()
        torch_helpers.set_torch_compile_wrapper(model=model, backend="eager")
        return model

    both = compiled(accelerated(flux, site=site)) if ours_first else accelerated(compiled(flux), site=site)
    torch.testing.assert_close(sample(both), sample(accelerated(flux, site="output")), rtol=1e-3, atol=1e-3)
    for report in reports:
        assert report.settings["site"] == "output"
        assert (report.network_runs, report.network_runs_saved) == (6, 6)
    assert len([r for r in caplog.records if "compiled with torch.compile" in r.message]) == (site != "output")
    assert leftovers(flux) == []


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("ours_first", [False, True])
def test_blocks_that_are_compiled_one_by_one_are_passed_by(site, ours_first, reports, caplog):
    """As KJNodes' compile nodes do it, and Wan's by default."""
    torch_helpers = pytest.importorskip("comfy_api.torch_helpers")
    model = build_flux()
    network = model.model.diffusion_model
    keys = [f"diffusion_model.{path}.{i}" for path in ("double_blocks", "single_blocks")
            for i in range(len(network.get_submodule(path)))]

    def compiled(model):
        model = model.clone()
        torch_helpers.set_torch_compile_wrapper(model=model, backend="eager", keys=keys)
        return model

    both = compiled(accelerated(model, site=site)) if ours_first else accelerated(compiled(model), site=site)
    result = sample(both)
    served = "output" if site == "output" else "hidden"
    assert (reports[-1].settings["site"], reports[-1].full_steps) == (served, FULL)
    assert (reports[-1].network_runs, reports[-1].network_runs_saved) == (6, 6)
    torch.testing.assert_close(result, sample(accelerated(model, site=served)), rtol=1e-3, atol=1e-3)
    assert len([r for r in caplog.records if "inside blocks compiled" in r.message]) == (site == "module")
    torch.testing.assert_close(sample(compiled(accelerated(model, interval=1, site=site))), sample(compiled(model)))
    assert leftovers(model) == []


def test_one_block_compiled_by_hand(flux, reports):
    """torch.compile takes a module's hooks in where it compiles it, and not later; eager it does the same."""
    network = flux.model.diffusion_model
    blocks, compiled = network.double_blocks, torch.compile(network.double_blocks[0], backend="eager")
    network.double_blocks = torch.nn.ModuleList([compiled, *blocks[1:]])
    try:
        full = sample(flux)
        sample(accelerated(flux, site="module"))
        assert reports[0].predicted_steps
        assert torch.isfinite(full).all()
    finally:
        network.double_blocks = blocks
