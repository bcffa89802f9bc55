"""Error control in ComfyUI's own sampling: a run's full steps follow from the errors in its report."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
import torch
from comfy_host import PACK, RunCounter, accelerated, attach_module, femo_core, femo_node, leftovers, taylorseer_node
from small_flux import sample

STEPS = 12
TOLERANCE = 0.3  # random weights make for forecasts that are far off
SITES = ("hidden", "module", "output")
folder_paths = sys.modules["folder_paths"]
calibration_file = sys.modules[f"{PACK}.nodes.learned.calibration_file"]


def cached(model, node=taylorseer_node.TaylorSeerCache, **inputs):
    """By the node; inputs that are left out have the defaults of its `execute`."""
    node = node.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "7"})
    given = {"enabled": True, "interval": 5, "max_order": 1, "warmup_steps": 3, "cooldown_steps": 1, "site": "hidden"}
    return node.execute(model=model, **{**given, **inputs}).result[0]


def controlled(report, interval, order=1, warmup=3, cooldown=1, total=STEPS):
    """The full steps that the report's errors lead to."""
    steps, end = [*range(warmup)], total - cooldown
    while True:
        own = [row["error"] for row in report.errors if row["step"] == steps[-1]]
        gap = (steps[-1] - steps[-2]) * (report.settings["tolerance"] / max(own)) ** (1 / (order + 1))
        following = steps[-1] + max(1, min(interval, round(gap)))
        if following >= end:
            return (*steps, *range(end, total))
        steps.append(following)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_full_steps_are_those_that_the_errors_lead_to(flux, site, cfg, reports):
    with RunCounter(flux) as runs:
        result = sample(cached(flux, tolerance=TOLERANCE, site=site), cfg=cfg)
    (report,) = reports
    assert report.full_steps == controlled(report, 5)
    assert {row["stream"] for row in report.errors} == set(range(1 if cfg == 1.0 else 2))
    assert report.settings["tolerance"] == TOLERANCE
    assert sorted((*report.full_steps, *report.predicted_steps)) == [*range(STEPS)]
    assert runs.count == report.network_runs >= len(report.full_steps)
    assert report.network_runs_saved > 0
    assert torch.isfinite(result).all()
    assert leftovers(flux) == []


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "heunpp2", "dpmpp_2m"])
def test_samplers_that_evaluate_a_step_twice_or_look_ahead_too(flux, sampler, reports):
    sample(cached(flux, tolerance=TOLERANCE), sampler=sampler)
    assert reports[0].full_steps == controlled(reports[0], 5)
    assert reports[0].network_runs_saved > 0


def test_the_interval_is_the_widest_gap(flux, reports):
    sample(cached(flux, tolerance=1.0, interval=4, cooldown_steps=0), steps=20)
    full = reports[0].full_steps
    assert max(after - before for before, after in pairwise(full)) == 4
    assert full != femo_core.Schedule(4, 3).full_steps(20)


def test_a_tolerance_that_nothing_meets_is_bit_equal(flux, reports):
    assert torch.equal(sample(cached(flux, tolerance=1e-9)), sample(flux))
    assert "no forecast came near the tolerance" in reports[0].reason


@pytest.mark.parametrize("node", [femo_node.FeMoCache, taylorseer_node.TaylorSeerCache])
def test_a_workflow_without_the_input_means_what_it_meant(flux, node, reports):
    more = {"beta": 0.3, "gamma": 0.0, "beta_min": 0.2, "beta_max": 0.45} if node is femo_node.FeMoCache else {}
    predictor = femo_core.FeMo(1, beta=0.3) if more else femo_core.TaylorSeer(1)
    before = sample(accelerated(flux, predictor, interval=5, cooldown=1))
    assert torch.equal(sample(cached(flux, node, **more)), before)
    assert torch.equal(sample(cached(flux, node, tolerance=0.0, **more)), before)
    assert {report.full_steps for report in reports} == {femo_core.Schedule(5, 3, 1).full_steps(STEPS)}
    sample(cached(flux, node, tolerance=TOLERANCE, **more))
    assert reports[-1].settings["tolerance"] == TOLERANCE


def test_with_a_calibration_its_steps_are_what_runs(flux, reports, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    node = sys.modules[f"{PACK}.nodes.calibrate"].FeMoCalibrate.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "3"})
    sample(node.execute(model=flux, enabled=True, name="one", average=False).result[0])
    for tolerance in (0.0, TOLERANCE):
        sample(cached(flux, calibration="one", budget=5, tolerance=tolerance))
    without, with_one = reports
    assert with_one.full_steps == without.full_steps
    assert (without.warnings, with_one.settings["tolerance"]) == ((), 0.0)
    assert with_one.warnings == (
        "calibration one says which steps are full: tolerance 0.3 is not used; set calibration to none for it",)


def test_where_the_calibration_can_not_be_used_the_tolerance_is(flux, reports):
    sample(cached(flux, calibration="gone", tolerance=TOLERANCE))
    assert "calibration gone is not used" in reports[0].warnings[0]
    assert reports[0].full_steps == controlled(reports[0], 5)


@pytest.mark.parametrize("tolerance", [-0.1, 1.1, math.nan])
def test_a_wrong_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance must be 0 … 1"):
        attach_module.CacheConfig(femo_core.TaylorSeer(1), femo_core.Schedule(4), tolerance=tolerance)
