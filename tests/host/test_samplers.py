"""Every sampler and scheduler that KSampler offers; docs/samplers.md says how often the network runs in each."""

from __future__ import annotations

import re

import pytest
import torch
from comfy_host import accelerated, comfy, distance
from hosts import ROOT
from small_flux import sample

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS
PAGE = ROOT / "docs" / "samplers.md"
CHOOSES_ITS_STEPS = {"dpm_adaptive"}  # by an error that it estimates, so that their number is not ours to document

# Each evaluation goes by its own place: heun's second one by the step it looks ahead to, dpm_2's by the step it is in.
COMMON = {"euler", "dpmpp_2m", "euler_ancestral", "ddim", "uni_pc", "heun", "dpm_2", "dpmpp_sde", "dpmpp_2s_ancestral",
          "heunpp2"}


def documented() -> dict[str, tuple[int, int]]:
    """Network runs of 12 steps in full, and with N = 3, by sampler."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: (int(full), int(cached)) for name, full, cached in rows}


# Without guidance those that ask for it all the same, and one of the others: their own code is the same with it.
@pytest.mark.parametrize(("sampler", "cfg"), [
    *((sampler, 4.0) for sampler in SAMPLERS),
    *((sampler, 1.0) for sampler in SAMPLERS if sampler == "euler" or "cfg_pp" in sampler)])
def test_samplers(flux, sampler, cfg, reports):
    plain = sample(flux, sampler=sampler, cfg=cfg)
    assert torch.equal(sample(accelerated(flux, interval=1), sampler=sampler, cfg=cfg), plain)
    result = sample(accelerated(flux), sampler=sampler, cfg=cfg)
    assert torch.isfinite(result).all() or not torch.isfinite(plain).all()
    if sampler in COMMON:
        assert reports[1].full_steps == (0, 1, 2, 5, 8, 11)
        assert distance(result, plain) < 0.6
    if sampler not in CHOOSES_ITS_STEPS:
        assert (reports[0].network_runs, reports[1].network_runs) == documented()[sampler]
        assert reports[1].network_runs + reports[1].network_runs_saved == reports[0].network_runs


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(flux, scheduler, reports):
    def run(model):
        return sample(model, scheduler=scheduler, cfg=4.0)

    plain = run(flux)
    assert torch.equal(run(accelerated(flux, interval=1)), plain)
    assert torch.isfinite(run(accelerated(flux))).all()
    assert reports[1].network_runs < reports[0].network_runs
