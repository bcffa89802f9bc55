from __future__ import annotations

from itertools import pairwise
from statistics import mean

import pytest
import torch

from benchmarks.calibration import error_control
from benchmarks.calibration.calibration import Recording
from benchmarks.calibration.error_control import (
    TOLERANCES,
    WIDEST_GAP,
    Pictures,
    cell,
    forecast_error,
    tolerance_for,
    verified,
)
from benchmarks.sampling.subjects import TinyFlux
from femo_core import TaylorSeer

STEPS = 50


def recording(seed=0):
    """Of a smooth trajectory, which turns faster towards its end; and its features."""
    generator = torch.Generator().manual_seed(seed)
    rates, phases = 3 * torch.rand(2, 7, generator=generator, dtype=torch.float64)
    times = torch.linspace(0, 1, STEPS, dtype=torch.float64)[:, None]
    features = 2 + torch.sin(rates * times**3 + phases)
    sigmas = [1 - step / STEPS for step in range(STEPS + 1)]
    gram = features @ features.T / features.shape[1]
    return Recording(torch.zeros(1), features, features, gram, sigmas, [1 - sigma for sigma in sigmas]), features


def test_the_forecast_error_is_that_of_the_features():
    made, features = recording()
    state = TaylorSeer(1).init()
    for step in (10, 14):
        state = TaylorSeer(1).update(state, features[step : step + 1], step)
    distance = (TaylorSeer(1).predict(state, 20) - features[20]).norm()
    assert forecast_error(made, 10, 14, 20, weigh=False) == pytest.approx(float(distance / features[20].norm()))
    assert forecast_error(made, 10, 14, 20, weigh=True) == pytest.approx(
        float(distance / features.shape[1] ** 0.5) * made.lasting[20])


def test_a_tighter_tolerance_makes_more_steps_full():
    made, _ = recording()
    counts = [len(verified(made, tolerance)) for tolerance in (1e-9, 1e-3, 1e-2, 1e3)]
    assert counts[0] > 45
    assert counts == sorted(counts, reverse=True)
    steps = verified(made, 1e3)
    assert steps[:2] == (0, 1)
    assert max(after - before for before, after in pairwise(steps)) == WIDEST_GAP


def test_verification_keeps_every_forecast_within_the_tolerance():
    made, _ = recording()
    steps = verified(made, 1e-3)
    for step in range(2, STEPS):
        if step not in steps:
            before, last = [full for full in steps if full < step][-2:]
            assert forecast_error(made, before, last, step, weigh=False) <= 1e-3


@pytest.mark.parametrize("weigh", [False, True])
def test_the_tolerance_gives_as_many_full_steps_as_are_wanted(weigh):
    made = [recording(seed)[0] for seed in range(8)]

    def counts(tolerance):
        return [len(verified(one, tolerance, weigh)) for one in made]

    found = tolerance_for(10, counts)
    assert 10 <= mean(counts(found)) < 11
    assert mean(counts(TOLERANCES[TOLERANCES.index(found) + 1])) < 10


def test_controlled_runs_are_runs_of_the_session_with_full_steps_of_their_own(monkeypatch):
    monkeypatch.setattr(error_control, "PICTURES", 2)
    pictures = Pictures(TinyFlux())
    (near, many), (far, few) = pictures.controlled(0.02), pictures.controlled(1.0)
    assert all(a > b for a, b in zip(many, few, strict=True))
    assert max(near) < min(far)
    assert pictures.controlled(1.0)[1] is few  # a tolerance is run once


def test_more_runs_than_wanted_are_said():
    assert cell([0.1, 0.2, 0.6], [10, 10, 10], 10) == "0.3000 ± 0.1528 (0.2000)"
    assert cell([0.1, 0.2, 0.6], [10, 10, 12], 10).endswith(", 10.7 runs")
