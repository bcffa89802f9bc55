"""What gaps cost, and the best full steps and slopes for any budget."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from trajectories import flow_levels, gaussian_gram, gram_of, trajectory

from femo_core import RampSchedule, ScaledTaylor, TaylorSeer, expected_error, lasting_step_lengths, tune, tuning_runs
from femo_core.gap_costs import MOST_FACTOR, gap_costs
from femo_core.presets import RAMP
from femo_core.tuning import MOST_TRIES, SPREAD

WEIGHTS = [0.5 + 0.1 * step for step in range(10)]


def gap_error(features, before, last, after, factor):
    """By forecasting the features themselves."""
    total = torch.zeros_like(features[0])
    for step in range(last + 1, after):
        forecast = features[last]
        if before is not None:
            forecast = forecast + factor * (features[last] - features[before]) / (last - before) * (step - last)
        total = total + WEIGHTS[step] * (forecast - features[step])
    return float(total.square().mean())


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_a_gap_costs_what_its_forecasts_come_to(slope):
    features = trajectory(10)
    found = gap_costs(gram_of(features), WEIGHTS, slope)
    for before, last, after in itertools.combinations(range(11), 3):
        if last < 10:
            assert float(found.costs[before, last, after]) == pytest.approx(
                gap_error(features, before, last, after, slope), rel=1e-9, abs=1e-12)
    assert float(found.costs[10, 3, 7]) == pytest.approx(gap_error(features, None, 3, 7, 0.0))
    assert found.costs[4, 3, 7].isinf()
    assert found.costs[2, 3, 3].isinf()


def test_a_fitted_slope_is_the_best_of_all():
    features = trajectory(10)
    found = gap_costs(gram_of(features), WEIGHTS, pull=0.0)
    for gap in ((0, 2, 6), (1, 4, 10), (3, 5, 9)):
        factor = float(found.factors[gap])
        tried = [gap_error(features, *gap, MOST_FACTOR * share / 1000) for share in range(1001)]
        assert gap_error(features, *gap, factor) <= min(tried) + 1e-12
        assert float(found.costs[gap]) == pytest.approx(gap_error(features, *gap, factor))
        assert float(gap_costs(gram_of(features), WEIGHTS, 0.7, 1e9).factors[gap]) == pytest.approx(0.7)


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 9, 10])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("pull", [None, 0.1])
def test_the_full_steps_are_the_best_of_all(budget, seed, pull):
    found = gap_costs(gram_of(trajectory(10, seed=seed)), WEIGHTS, pull=pull)
    steps = found.best_steps(budget)
    assert len(steps) == budget
    costs = [found.of((0, *others))[0] for others in itertools.combinations(range(1, 10), budget - 1)]
    assert found.of(steps)[0] == pytest.approx(min(costs), abs=1e-12)


def problem(steps=20, shift=1.0):
    sigmas = flow_levels(steps, shift)
    return gaussian_gram(sigmas), sigmas, [1 - sigma for sigma in sigmas]


@pytest.mark.parametrize("shift", [3.0, 1.0, 0.25])
@pytest.mark.parametrize("budget", [2, 5, 9])
def test_nothing_that_is_known_is_expected_to_do_better(shift, budget):
    gram, sigmas, signals = problem(20, shift)
    found = tune(gram, sigmas, signals, budget)
    steps, weights = found.schedule.full_steps(20), lasting_step_lengths(sigmas, signals, SPREAD)
    assert found.expected_error == pytest.approx(
        expected_error(gram, weights, steps, found.predictor, 0.0), rel=1e-3)  # factors are rounded
    for others, predictor in ((RampSchedule(len(steps)).full_steps(20), RAMP), (steps, TaylorSeer(1)),
                              (tuple(20 * i // len(steps) for i in range(len(steps))), TaylorSeer(1))):
        assert found.expected_error <= 1.2 * expected_error(gram, weights, others, predictor, 0.0)


def test_at_small_shifts_full_steps_come_early_and_at_large_ones_late():
    early, late = (tune(*problem(50, shift), 9).schedule.steps for shift in (0.1, 5.0))
    assert sum(early) < sum(late)


def test_a_straight_path_needs_two_full_steps():
    line = torch.linspace(1, 2, 10, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    sigmas = flow_levels(10)
    found = tune(gram_of(line), sigmas, [1 - sigma for sigma in sigmas], 2)
    assert found.schedule.steps == (0, 1)
    assert found.expected_error == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_short_runs_and_every_budget(total):
    for budget in range(1, total + 1):
        found = tune(*problem(total), budget)
        assert budget <= len(found.schedule.full_steps(total)) <= total
    assert tune(*problem(total), total).expected_error == 0.0


def test_where_plain_steps_are_expected_to_do_better_there_are_more_full_steps():
    """A zigzag, which a line through two steps misses most."""
    zigzag = torch.tensor([[(-1.0) ** step, 0.1 * step] for step in range(8)], dtype=torch.float64)
    sigmas = flow_levels(8, 4.0)
    found = tune(gram_of(zigzag), sigmas, [1 - sigma for sigma in sigmas], 3)
    assert len(found.schedule.steps) == 4


# Trying out

def test_the_best_of_what_was_tried_is_taken_and_no_more_is_tried_than_said():
    asked = []
    wanted = (0, 1, 3, 6, 12)

    def try_out(schedule, predictor):
        asked.append((schedule.full_steps(20), predictor))
        return float(sum(abs(a - b) for a, b in zip(schedule.full_steps(20), wanted, strict=True)))

    found = tune(*problem(20), 5, try_out)
    errors = [sum(abs(a - b) for a, b in zip(steps, wanted, strict=True)) for steps, _ in asked]
    assert len(asked) == len(set(asked)) <= MOST_TRIES
    assert (found.schedule.steps, found.predictor) == asked[errors.index(min(errors))]
    assert min(errors) < errors[0]
    assert asked[0][0] == tune(*problem(20), 5).schedule.steps
    assert (RampSchedule(5, tuple(flow_levels(20))).full_steps(20), RAMP) in asked
    assert tuning_runs(5) == 5 * MOST_TRIES


def test_an_error_that_is_no_number_is_the_worst():
    first = tune(*problem(20), 5)
    found = tune(*problem(20), 5, lambda schedule, predictor: (
        math.nan if schedule.full_steps(20) == first.schedule.steps else 1.0))
    assert found.schedule.steps != first.schedule.steps


def test_what_trying_out_raises_is_passed_on():
    def fails(schedule, predictor):
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        tune(*problem(20), 5, fails)


def test_a_full_run_is_not_tried():
    assert tune(*problem(6), 6, lambda *_: pytest.fail("tried")).schedule.steps == tuple(range(6))


def test_what_can_not_be_tuned():
    gram, sigmas, signals = problem(10)
    for budget in (0, 11):
        with pytest.raises(ValueError, match=f"budget must be 1 … 10; got {budget}"):
            tune(gram, sigmas, signals, budget)
    with pytest.raises(ValueError, match=r"gram must be \(10, 10\)"):
        tune(gram[:9, :9], sigmas, signals, 3)
    with pytest.raises(ValueError, match="gram must be finite"):
        tune(gram * math.nan, sigmas, signals, 3)
    with pytest.raises(ValueError, match="sigmas must be finite, 0 or more and fall"):
        tune(gram, sigmas[::-1], signals, 3)
    with pytest.raises(ValueError, match="signals must be 11, as many as sigmas; got 10"):
        tune(gram, sigmas, signals[:-1], 3)
    with pytest.raises(ValueError, match="signals must be finite"):
        tune(gram, sigmas, [math.nan] * 11, 3)


def test_what_is_found_can_be_used_as_it_is():
    found = tune(*problem(50), 9)
    assert isinstance(found.predictor, ScaledTaylor | TaylorSeer) or found.predictor.max_order == 1
    assert len(found.schedule.full_steps(50)) == 9
