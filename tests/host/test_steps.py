"""Noise level -> step coordinate."""

from __future__ import annotations

import sys
from itertools import pairwise

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


def places(clock, levels, each=1, tells=True):
    """What a sampler with `each` evaluations a step is told, which calls its callback after the first of them."""
    found = []
    for step, parts in enumerate(levels):
        for number, level in enumerate([parts] if each == 1 else parts):
            found.append(clock.step(level))
            if number == 0 and tells:
                clock.told(step)
    return found


LEVELS = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_a_sampler_that_tells_another_level_is_placed_by_its_callback(factor):
    found = places(StepClock(LEVELS), [factor * level for level in LEVELS[:-1]])
    assert found[0] == 0.0
    assert found[2:] == [2.0, 3.0, 4.0]


def test_so_is_one_with_two_evaluations_a_step():
    """The second is in the step, or at the next one's level."""
    pairs = [(0.9 * level, 0.9 * (level - 0.1)) for level in LEVELS[:-1]]
    found = places(StepClock(LEVELS), pairs, 2)
    assert found[4::2] == [2.0, 3.0, 4.0]
    assert all(2.0 <= place <= 3.0 for place in found[5:6])


@pytest.mark.parametrize("levels", [LEVELS, LEVELS[::-1]])
@pytest.mark.parametrize("tells", [True, False])
def test_levels_that_are_told_rightly_stay_what_they_are(levels, tells):
    assert places(StepClock(levels), levels[:-1], tells=tells) == [0.0, 1.0, 2.0, 3.0, 4.0]
    middles = [(a, (a + b) / 2) for a, b in pairwise(levels)]
    assert places(StepClock(levels), middles, 2, tells) == pytest.approx([i / 2 for i in range(10)])


def test_a_sampler_that_chooses_its_own_steps_goes_by_its_levels():
    clock = StepClock([1 - i / 12 for i in range(13)])
    found = places(clock, [(1 - 0.2 * i, 0.93 - 0.2 * i, 0.87 - 0.2 * i) for i in range(5)], 3)
    assert found[::3] == pytest.approx([0.0, 2.4, 4.8, 7.2, 9.6])


def test_callbacks_out_of_order_are_not_gone_by():
    """A sampler that runs another one in parts."""
    clock = StepClock(LEVELS)
    for step, level in ((0, 1.0), (1, 0.8), (2, 0.6), (0, 0.41), (1, 0.25)):
        found = clock.step(level)
        clock.told(step)
    assert found == pytest.approx(3.75)


def test_repeated_levels_are_counted_by_the_callback():
    clock = StepClock([1.0, 0.5, 0.5, 0.0])
    assert places(clock, [(1.0, 0.5), (0.5, 0.5), (0.5, 0.0)], 2) == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]
