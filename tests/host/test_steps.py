"""Noise level -> step coordinate."""

from __future__ import annotations

import sys

import pytest
from comfy_host import PACK

steps = sys.modules[f"{PACK}.nodes.run.steps"]
StepClock, coordinates_of, interpolated = steps.StepClock, steps.coordinates_of, steps.interpolated


@pytest.mark.parametrize(("sigma", "step"), [
    (1.0, 0.0), (0.8, 1.0), (0.4, 2.0), (0.0, 3.0),
    (0.99997, 0.0),  # dpmpp_sde starts a little below the first level
    (1.2, 0.0),  # churn starts above it
    (0.6, 1.5), (0.1, 2.75),
    (0.8000001, 1.0), (0.7999999, 1.0),
])
def test_levels_between_the_steps_are_fractions(sigma, step):
    assert StepClock([1.0, 0.8, 0.4, 0.0]).step(sigma) == pytest.approx(step)


def test_below_the_last_level_the_run_is_over():
    assert StepClock([1.0, 0.8, 0.4]).step(0.1) == 2.0


@pytest.mark.parametrize("sigmas", [[1.0, 0.5, 0.5, 0.0], [1.0, 0.5, 0.7, 0.0], [float("inf"), 1.0, 0.5, 0.0]])
def test_levels_that_do_not_fall_steadily_are_counted(sigmas):
    clock = StepClock(sigmas)
    assert [clock.step(sigma) for sigma in sigmas] == [0.0, 1.0, 2.0, 3.0]


def test_the_coordinate_is_the_fall_of_the_noise_level_in_mean_steps():
    coordinates = coordinates_of([1.0, 0.8, 0.4, 0.0])
    assert coordinates == pytest.approx([0.0, 0.6, 1.8, 3.0])
    assert interpolated(coordinates, 1.5) == pytest.approx(1.2)
    assert interpolated(coordinates, 3.0) == pytest.approx(3.0)


@pytest.mark.parametrize("times", [[1.0, 0.5, 0.7, 0.0], [1.0, 1.0, 0.0], [float("inf"), 1.0, 0.0], [1.0], []])
def test_levels_that_do_not_fall_steadily_have_no_coordinate(times):
    assert coordinates_of(times) is None


@pytest.mark.parametrize("sigmas", [[], [1.0], [1.0, 0.0]])
def test_short_runs(sigmas):
    clock = StepClock(sigmas)
    assert clock.total_steps == max(0, len(sigmas) - 1)
    assert clock.step(1.0) == 0.0
