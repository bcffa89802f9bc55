"""The guard over full steps that were chosen beforehand."""

from __future__ import annotations

import pytest
import torch

from femo_core import ExplicitSchedule, ForecastSession, TaylorSeer

TOTAL, FULL = 24, (0, 4, 8, 12, 16, 20)


def sampled(expected, feature, streams=("a",)):
    """What was full, and the report, of a run whose features are feature(step), (1, 8)."""
    session = ForecastSession(ExplicitSchedule(FULL, TOTAL), TaylorSeer(0), TOTAL, expected_errors=expected)
    full = []
    for step in range(TOTAL):
        session.begin_step(step)
        forecast = session.begin_call(streams, ["site"])
        if not forecast:
            full.append(step)
            for stream in streams:
                session.record(stream, {"site": feature(step)})
        session.count_run(forecast)
    return tuple(full), session.report(0.0)


def steady(step):
    return torch.ones(1, 8) + 0.01 * step


def broken(step):
    """Another model from step 8 on, and one that moves at every step."""
    return steady(step) if step < 8 else torch.randn(1, 8, generator=torch.Generator().manual_seed(step))


EXPECTED = dict.fromkeys(FULL[1:], 0.04)


def test_forecasts_as_expected_change_nothing():
    full, report = sampled(EXPECTED, steady)
    assert full == FULL
    assert report.warnings == ()


def test_from_a_forecast_that_was_far_off_gaps_are_halved():
    full, report = sampled(EXPECTED, broken)
    assert full[:3] == FULL[:3]
    assert {10, 14, 18, 22} <= set(full)
    (warning,) = report.warnings
    assert "times as far off as this model's profile expects: more steps are full from there on" in warning


@pytest.mark.parametrize("expected", [{}, dict.fromkeys(FULL[1:], 0.0), {5: 0.1}])
def test_without_what_is_expected_nothing_is_guarded(expected):
    assert sampled(expected, broken)[0] == FULL


def test_of_several_streams_the_mean_counts():
    assert sampled(EXPECTED, broken, ("a", "b"))[0] == sampled(EXPECTED, broken)[0]


def test_an_error_that_is_not_a_number_is_far_off():
    full, _ = sampled(EXPECTED, lambda step: steady(step) if step < 8 else torch.full((1, 8), torch.nan))
    assert len(full) > len(FULL)


def test_what_the_device_has_not_sent_is_not_waited_for(monkeypatch):
    from femo_core.plans.readback import Readback

    monkeypatch.setattr(Readback, "ready", property(lambda self: False))
    assert sampled(EXPECTED, broken)[0] == FULL
