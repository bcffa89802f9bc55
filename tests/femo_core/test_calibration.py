from __future__ import annotations

import itertools
import math

import pytest
import torch
from trajectories import gram_of, trajectory

from femo_core import (
    ExplicitSchedule,
    FeMo,
    ForecastSession,
    Schedule,
    TaylorSeer,
    TrajectoryGram,
    calibrate,
    calibrate_schedule,
    expected_error,
    expected_forecast_errors,
    lasting_step_lengths,
)
from femo_core.plans.plan import FixedPlan


def directly(features, weights, steps, predictor, correlation):
    """The expected error by forecasting the features themselves, and adding up the sums of the gaps."""
    state, sums, gap = predictor.init(), [], torch.zeros_like(features[:1])
    for step in range(len(features)):
        truth = features[step : step + 1]
        if step in steps:
            sums.append(gap)
            gap = torch.zeros_like(truth)
            state = predictor.update(state, truth, step)
        else:
            gap = gap + weights[step] * (predictor.predict(state, step) - truth)
    apart = sum(float(gap.square().mean()) for gap in (*sums, gap))
    together = float((sum(sums) + gap).square().mean())
    return math.sqrt(correlation * together + (1 - correlation) * apart)


WEIGHTS = [0.5 + 0.1 * step for step in range(10)]


@pytest.mark.parametrize("predictor", [
    TaylorSeer(0), TaylorSeer(1), TaylorSeer(2), FeMo(1, beta=0.3), FeMo(2, beta=0.1, momentum_start="feature")])
@pytest.mark.parametrize("correlation", [0.0, 0.75, 1.0])
def test_the_expected_error_is_that_of_the_forecasts(predictor, correlation):
    features = trajectory(10)
    for steps in ((0, 1, 4, 7), (0, 5), (0, 1, 2, 3, 9), (0,)):
        expected = expected_error(gram_of(features), WEIGHTS, steps, predictor, correlation)
        assert expected == pytest.approx(directly(features, WEIGHTS, steps, predictor, correlation), rel=1e-9)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 9, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_schedule_is_the_best_of_all(order, budget, seed):
    """Against every set of so many full steps."""
    gram, predictor = gram_of(trajectory(10, seed=seed)), TaylorSeer(order)
    found = calibrate(gram, WEIGHTS, budget, [predictor], gap_correlation=0.0)
    assert len(found.schedule.steps) == budget
    errors = [expected_error(gram, WEIGHTS, (0, *steps), predictor, gap_correlation=0.0)
              for steps in itertools.combinations(range(1, 10), budget - 1)]
    assert found.expected_error == pytest.approx(min(errors), abs=1e-7)


@pytest.mark.parametrize("predictor", [
    TaylorSeer(0), TaylorSeer(1), TaylorSeer(2), FeMo(1, beta=0.3), FeMo(1, beta=-0.2)])
@pytest.mark.parametrize("budget", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_correlated_gaps_all_come_near_the_best(predictor, budget, seed):
    gram = gram_of(trajectory(10, seed=seed))
    found = expected_error(gram, WEIGHTS, calibrate_schedule(gram, WEIGHTS, budget, predictor).steps, predictor)
    errors = sorted(expected_error(gram, WEIGHTS, (0, *steps), predictor)
                    for steps in itertools.combinations(range(1, 10), budget - 1))
    assert found <= errors[len(errors) // 20]  # among the best 5 %
    assert found <= 1.2 * errors[0]


def test_the_best_of_several_predictors():
    gram = gram_of(trajectory(10))
    predictors = [FeMo(1, beta=beta) for beta in (-0.4, 0.0, 0.4)]
    best = calibrate(gram, WEIGHTS, 4, predictors)
    each = [calibrate(gram, WEIGHTS, 4, [predictor]).expected_error for predictor in predictors]
    assert best.expected_error == min(each)
    assert best.predictor == predictors[each.index(min(each))]


@pytest.mark.parametrize("signal", [lambda sigma: 1.0, lambda sigma: 1 - sigma])
def test_lasting_step_lengths_are_what_is_left_of_an_error(signal):
    """Against a run, of many steps, of the optimal network for Gaussian data of that standard deviation."""
    spread, count = 2.0, 20_000
    top = 1.0 if signal(1.0) == 0 else 8.0
    sigmas = [top * (1 - step / count) for step in range(count + 1)]
    signals = [signal(sigma) for sigma in sigmas]
    lengths = lasting_step_lengths(sigmas, signals, spread)
    for made_at in (0, count // 2, count - 2000):
        shift = 0.0
        for step, (sigma, lower) in enumerate(itertools.pairwise(sigmas)):
            alpha, slope = signals[step], (signal(lower) - signals[step]) / (lower - sigma)
            # x = α·image + σ·noise, all Gaussian: dx/dσ is linear in x
            growth = (slope * alpha * spread**2 + sigma) / (alpha**2 * spread**2 + sigma**2)
            shift += (lower - sigma) * (growth * shift + (step == made_at))
        assert lengths[made_at] == pytest.approx(abs(shift), rel=2e-3)


def test_the_gram_matrix_is_recorded_as_the_run_goes():
    features = trajectory(6, width=8).reshape(6, 2, 4)
    gram = TrajectoryGram()
    for step, feature in enumerate(features):
        given = feature.clone()
        gram.record(step, given)
        given.zero_()  # a host's own buffer
    gram.close()
    torch.testing.assert_close(gram.matrix, gram_of(features.flatten(1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_gram_matrix_of_low_precision_is_summed_in_float32(dtype):
    features = torch.randn(4, 1, 30_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    gram = TrajectoryGram()
    for step, feature in enumerate(features):
        gram.record(step, feature)
    torch.testing.assert_close(gram.matrix, gram_of(features.double().flatten(1)), rtol=1e-4, atol=1e-4)


def test_what_can_not_be_calibrated():
    gram = gram_of(trajectory(10))
    for budget in (0, 11):
        with pytest.raises(ValueError, match=r"budget must be 1 … 10"):
            calibrate_schedule(gram, WEIGHTS, budget, TaylorSeer(1))
    with pytest.raises(ValueError, match=r"gram must be \(9, 9\)"):
        calibrate_schedule(gram, WEIGHTS[:9], 3, TaylorSeer(1))
    with pytest.raises(ValueError, match="must be finite"):
        calibrate_schedule(gram * math.nan, WEIGHTS, 3, TaylorSeer(1))
    with pytest.raises(ValueError, match="gap_correlation must be 0 … 1"):
        calibrate(gram, WEIGHTS, 3, [TaylorSeer(1)], gap_correlation=1.5)
    with pytest.raises(ValueError, match="signals must be 3, as many as sigmas; got 2"):
        lasting_step_lengths([1.0, 0.5, 0.0], [0.0, 0.5])
    with pytest.raises(ValueError, match="gamma must be 0"):
        calibrate_schedule(gram, WEIGHTS, 3, FeMo(1, beta=0.3, gamma=0.01))
    with pytest.raises(ValueError, match="adaptation sign"):
        calibrate_schedule(gram, WEIGHTS, 3, FeMo(1, beta=0.3, adaptation="least_squares"))
    recorded = TrajectoryGram()
    with pytest.raises(ValueError, match="step must be 0"):
        recorded.record(1, torch.zeros(1, 2))
    recorded.record(0, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="as before"):
        recorded.record(1, torch.zeros(1, 3))


@pytest.mark.parametrize("predictor", [TaylorSeer(0), TaylorSeer(2), FeMo(1, beta=-0.3)])
def test_expected_forecast_errors_are_those_of_forecasting_the_features_themselves(predictor):
    features, steps = trajectory(12), (0, 1, 4, 9)
    found, state = {}, predictor.init()
    for step in steps:
        truth = features[step : step + 1]
        if step:
            found[step] = ((predictor.predict(state, step) - truth).norm() / truth.norm()).item()
        state = predictor.update(state, truth, step)
    assert expected_forecast_errors(gram_of(features), steps, predictor) == pytest.approx(found)


def test_where_there_is_nothing_no_error_is_expected():
    assert expected_forecast_errors(torch.zeros(3, 3, dtype=torch.float64), (0, 1), TaylorSeer(1)) == {}


# Explicit schedules

def test_an_explicit_schedule_gives_its_steps():
    schedule = ExplicitSchedule((0, 1, 6, 20), 50)
    assert schedule.full_steps(50) == (0, 1, 6, 20)
    assert schedule.leading_steps == 2
    assert [FixedPlan(schedule, 50).outdated(0, step) for step in (30, 31)] == [False, True]
    assert [schedule.is_full(step, 50) for step in (0, 5, 6, 49, 50)] == [True, False, True, False, True]


def test_an_explicit_schedule_scales_to_other_numbers_of_steps():
    schedule = ExplicitSchedule((0, 1, 6, 20, 40), 50)
    assert schedule.full_steps(100) == (0, 2, 12, 40, 80)
    assert schedule.full_steps(25) == (0, 3, 10, 20)  # 1/2 rounds to 0
    assert ExplicitSchedule((0, 49), 50).full_steps(20) == (0, 19)  # 19.6 rounds to 20, which is no step
    assert ExplicitSchedule((0, 1, 6)).full_steps(100) == (0, 1, 6)
    for total in range(1, 60):
        steps = schedule.full_steps(total)
        assert steps[0] == 0
        assert all(step < total for step in steps)


@pytest.mark.parametrize(("steps", "total", "words"), [
    ((), 0, "start at 0"), ((1, 2), 0, "start at 0"), ((0, 2, 2), 0, "must ascend"),
    ((0, 60), 50, "below total_steps")])
def test_explicit_schedules_that_make_no_sense(steps, total, words):
    with pytest.raises(ValueError, match=words):
        ExplicitSchedule(steps, total)


def test_a_session_runs_by_an_explicit_schedule():
    session = ForecastSession(ExplicitSchedule((0, 1, 4, 9), 12), TaylorSeer(1), 12)
    ran = []
    for step in range(12):
        session.begin_step(step)
        saved = session.begin_call(["a"], ["x"])
        if saved:
            torch.testing.assert_close(session.forecast(["a"], "x"), torch.full((1, 2), 3.0 + step))
        else:
            ran.append(step)
            if session.wants_features("a"):
                session.record("a", {"x": torch.full((1, 2), 3.0 + step)})
        session.count_run(saved)
    assert ran == [0, 1, 4, 9]
    report = session.report(0.0)
    assert report.settings["steps"] == (0, 1, 4, 9)


def test_a_session_of_which_all_is_full_says_so():
    session = ForecastSession(ExplicitSchedule((0, 1, 2), 3), TaylorSeer(1), 3)
    for step in range(3):
        session.begin_step(step)
        session.begin_call(["a"], ["x"])
        session.count_run(saved=False)
    assert "makes all 3 steps full" in session.report(0.0).reason
    assert Schedule(1).why_all_full(3) == "interval is 1"
