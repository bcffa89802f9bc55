"""Full steps by the number of steps, as new cache nodes have it."""

from __future__ import annotations

import pytest
import torch
from comfy_host import RunCounter, femo_core, femo_node, leftovers, taylorseer_node
from small_flux import sample
from test_tolerance import cached

NODES = (femo_node.FeMoCache, taylorseer_node.TaylorSeerCache)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("site", ["hidden", "module", "output"])
@pytest.mark.parametrize("steps", [8, 20])
def test_full_steps_are_those_of_a_ramp(flux, node, site, steps, reports):
    extra = {} if node is taylorseer_node.TaylorSeerCache else {
        "beta": 0.325, "gamma": 0.0, "beta_min": 0.2, "beta_max": 0.45}
    with RunCounter(flux) as runs:
        result = sample(cached(flux, node, interval=0, site=site, **extra), steps=steps)
    (report,) = reports
    budget = len(femo_core.RampSchedule.suited(steps).full_steps(steps))
    rising = tuple(range(steps))
    long = (*(1 - 0.5 * step / steps for step in rising), 0.0)  # levels whose last step is long
    assert tuple(report.full_steps) in [
        femo_core.RampSchedule(budget, sigmas).full_steps(steps) for sigmas in ((), long)]
    assert runs.count == budget
    assert result.isfinite().all()
    assert not leftovers(flux)


def test_a_run_of_four_steps_is_full_and_bit_equal(flux, reports):
    assert torch.equal(sample(cached(flux, interval=0), steps=4), sample(flux, steps=4))
    assert "a budget of 4 makes all 4 steps full" in reports[0].reason


def test_a_tolerance_is_told_to_be_without_use(flux, reports):
    sample(cached(flux, interval=0, tolerance=0.3))
    assert any("tolerance is not used with interval 0" in warning for warning in reports[0].warnings)


@pytest.mark.parametrize("scheduler", ["normal", "karras", "beta", "ddim_uniform", "kl_optimal"])
def test_every_scheduler_has_its_ramp(flux, scheduler, reports):
    sample(cached(flux, interval=0), steps=12, scheduler=scheduler)
    assert reports[0].predicted_steps
