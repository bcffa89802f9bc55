"""Every sampler and scheduler that KSampler offers; docs/samplers.md says how often the network runs in each."""

from __future__ import annotations

import re

import pytest
import torch
from comfy_host import accelerated, comfy
from hosts import ROOT
from small_flux import sample

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS
PAGE = ROOT / "docs" / "samplers.md"
CHOOSES_ITS_STEPS = {"dpm_adaptive"}  # by an error that it estimates, so that their number is not ours to document


def documented() -> dict[str, tuple[int, int]]:
    """Network runs of 12 steps in full, and with N = 3, by sampler."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: (int(full), int(cached)) for name, full, cached in rows}


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(flux, sampler, cfg, reports):
    plain = sample(flux, sampler=sampler, cfg=cfg)
    assert torch.equal(sample(accelerated(flux, interval=1), sampler=sampler, cfg=cfg), plain)
    assert torch.isfinite(sample(accelerated(flux), sampler=sampler, cfg=cfg)).all() or not torch.isfinite(plain).all()
    if sampler not in CHOOSES_ITS_STEPS:
        assert (reports[0].network_runs, reports[1].network_runs) == documented()[sampler]
        assert reports[1].network_runs + reports[1].network_runs_saved == reports[0].network_runs


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(flux, scheduler, cfg, reports):
    def run(model):
        return sample(model, scheduler=scheduler, cfg=cfg)

    plain = run(flux)
    assert torch.equal(run(accelerated(flux, interval=1)), plain)
    assert torch.isfinite(run(accelerated(flux))).all()
    assert reports[1].network_runs < reports[0].network_runs
