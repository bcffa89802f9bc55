from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from femo_core import ExplicitSchedule, FeMo, ForecastSession, Schedule, TaylorSeer
from femo_core.plans.error_control import next_gap

REUSE = TaylorSeer(0)  # whose error grows as the gap
TOLERANCE = 0.125


class Network:
    """Off from a reused feature by the errors that it is given, one at each full step; for its last one, and on."""

    def __init__(self, *errors, device=None):
        self.errors, self.feature = list(errors), torch.ones(2, 3, device=device)

    def __call__(self):
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        self.feature = self.feature / (1 - error)
        return self.feature


def drive(session, steps, networks):
    """A host in small: a network for each stream. Returns which evaluations were full, by stream."""
    ran = {stream: [] for stream in networks}
    for step in steps:
        session.begin_step(step)
        for stream, network in networks.items():
            saved = session.begin_call([stream], ["x"])
            if saved:
                session.forecast([stream], "x")
            elif session.wants_features(stream):
                session.record(stream, {"x": network()})
            session.count_run(saved)
            ran[stream] += [] if saved else [step]
    return ran


def full_steps(schedule, *errors, total=20, tolerance=TOLERANCE, steps=None):
    """One stream. The first of the errors is of no account: nothing can be compared yet."""
    session = ForecastSession(schedule, REUSE, total, tolerance=tolerance)
    return drive(session, steps or range(total), {"a": Network(0.0, *errors)})["a"]


# The rule

@pytest.mark.parametrize(("gap", "error", "order", "expected"), [
    (4, 0.1, 1, 4), (4, 0.4, 1, 2), (4, 0.025, 1, 8), (4, 0.4, 0, 1), (2, 0.0125, 2, 4),
    (1, 1e-9, 1, 12), (1, 0.0, 1, 12), (12, 1e9, 1, 1), (3, math.inf, 1, 1), (3, math.nan, 1, 1), (3, 5e-324, 4, 12)])
def test_the_gap_is_that_at_which_the_error_comes_to_the_tolerance(gap, error, order, expected):
    """It grows as gap to the order plus one."""
    assert next_gap(gap, error, 0.1, order, widest=12) == expected


@pytest.mark.parametrize("tolerance", [-0.1, 1.5, math.nan, "0.1"])
def test_a_wrong_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be 0 … 1 \(0 is off\); got"):
        ForecastSession(Schedule(6), REUSE, 20, tolerance=tolerance)


def test_full_steps_given_one_by_one_leave_nothing_to_control():
    with pytest.raises(ValueError, match=r"tolerance must be 0 with ExplicitSchedule.*got 0\.1: give a Schedule"):
        ForecastSession(ExplicitSchedule((0, 1, 5)), REUSE, 20, tolerance=0.1)
    ForecastSession(ExplicitSchedule((0, 1, 5)), REUSE, 20)


# In a run

def test_gaps_widen_and_narrow_and_keep_to_the_widest():
    """1 step at 1/16: 2; 2 at 1/16: 4; 4 at 1/2: 1; 1 at 1/8: 1; 1 at 1/100: 5, the widest."""
    assert full_steps(Schedule(5, 1), 1 / 16, 1 / 16, 1 / 2, 1 / 8, 1 / 100) == [0, 1, 3, 7, 8, 9, 14, 19]


def test_the_widest_gap_is_that_of_max_consecutive_too():
    assert full_steps(Schedule(5, 1, max_consecutive=2), 0.0, total=12) == [0, 1, 4, 7, 10]


def test_what_the_last_step_of_the_warmup_tells_makes_the_first_gap():
    """Recorded from its last step but one on, as without a tolerance."""
    assert full_steps(Schedule(9, 3), 1 / 32, 1 / 2, total=12) == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert full_steps(Schedule(9, 5), 1 / 32, 1 / 2, total=12) == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_the_cooldown_is_full_whatever_the_error():
    assert full_steps(Schedule(9, 2, 3), 1 / 64, 0.0, total=20) == [0, 1, 9, 17, 18, 19]


def test_nothing_but_the_warmup_is_forced_where_all_is_within():
    assert full_steps(Schedule(1000, 2), 0.0, total=20) == [0, 1]


def test_a_tolerance_that_nothing_meets_makes_every_step_full_and_says_so():
    session = ForecastSession(Schedule(5, 1), REUSE, 8, tolerance=TOLERANCE)
    assert drive(session, range(8), {"a": Network(0.0, 0.5)})["a"] == [*range(8)]
    assert session.report(0.0).reason == "no forecast came near the tolerance (0.125)"


def test_interval_one_is_full():
    session = ForecastSession(Schedule(1), REUSE, 8, tolerance=1.0)
    assert not session.forecasts
    assert drive(session, range(8), {"a": Network(0.0)})["a"] == [*range(8)]
    assert session.report(0.0).reason == "interval is 1"


@pytest.mark.parametrize("schedule", [Schedule(6, 3), Schedule(4, 2, 1), Schedule(6, 3, max_consecutive=3)])
def test_without_a_tolerance_full_steps_are_the_schedules(schedule):
    assert tuple(full_steps(schedule, 0.5, 0.0, 0.5, tolerance=0.0)) == schedule.full_steps(20)


def test_of_several_streams_the_worst_decides():
    session = ForecastSession(Schedule(8, 1), REUSE, 12, tolerance=TOLERANCE)
    ran = drive(session, range(12), {"a": Network(0.0, 1 / 16, 1 / 2, 0.0), "b": Network(0.0, 1 / 64, 1 / 8, 1 / 8)})
    assert ran["a"] == ran["b"] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]  # a: 2, 1; b from then on: 1


def test_one_that_comes_late_has_its_warmup_and_changes_no_gap_in_it():
    """Then its own gap counts: at 8 that of two steps, which were since its warm-up."""
    session = ForecastSession(Schedule(6, 3), REUSE, 16, tolerance=TOLERANCE)
    drive(session, range(4), {"a": Network(0.0)})  # its next full step is 8
    ran = drive(session, range(4, 16), {"a": Network(0.0), "late": Network(0.0, 1 / 2, 1 / 16, 0.0)})
    assert ran == {"a": [8, 12], "late": [4, 5, 6, 8, 12]}


def test_a_stream_that_missed_a_full_step_starts_afresh():
    session = ForecastSession(Schedule(6, 3), REUSE, 40, tolerance=TOLERANCE)
    drive(session, range(5), {"a": Network(0.0), "gone": Network(0.0)})
    drive(session, range(5, 33), {"a": Network(0.0)})
    assert drive(session, range(33, 37), {"a": Network(0.0), "gone": Network(0.0)})["gone"] == [33, 34, 35]


def test_so_does_one_that_is_back_within_the_widest_gap():
    """The full steps are 0, 1, 3, 5, 7; it missed 5 and 7."""
    session = ForecastSession(Schedule(6, 1), REUSE, 12, tolerance=TOLERANCE)
    narrow = Network(0.0, 1 / 16, 1 / 8)
    drive(session, range(5), {"a": narrow, "gone": Network(0.0)})
    assert drive(session, range(5, 8), {"a": narrow})["a"] == [5, 7]
    assert drive(session, range(8, 9), {"a": narrow, "gone": Network(0.0)}) == {"a": [], "gone": [8]}


def test_streams_that_are_done_with_are_not_taken_for_late_ones():
    """The cool-down has full steps at which nothing is recorded any more."""
    session = ForecastSession(Schedule(5, 1, 3), REUSE, 8, tolerance=TOLERANCE)
    drive(session, range(8), {"a": Network(0.0, 0.5)})
    assert session.report(0.0).reason == "no forecast came near the tolerance (0.125)"


def test_an_evaluation_once_more_and_one_between_two_steps_go_by_the_whole_step():
    steps = [step + part for step in range(12) for part in (0.0, 0.0, 0.5)]
    found = full_steps(Schedule(5, 1), 0.0, 1 / 16, steps=steps, total=12)
    assert found == [step for step in steps if int(step) in (0, 1, 3, 7)]


def test_a_look_ahead_of_a_step_changes_nothing():
    """heunpp2 evaluates i, i + 1, i + 2 and returns to i + 1."""
    ahead = full_steps(Schedule(4, 2), 0.0, steps=[step + part for step in range(10) for part in range(3)], total=12)
    assert set(ahead) == {0, 1, 5, 9}


def test_going_back_starts_afresh():
    session = ForecastSession(Schedule(4, 2), REUSE, 12, tolerance=TOLERANCE)
    network = Network(0.0)
    assert drive(session, range(9), {"a": network})["a"] == [0, 1, 5]
    assert drive(session, range(3, 12), {"a": network})["a"] == [3, 4, 8]


def test_not_a_number_is_no_error_within_the_tolerance():
    assert full_steps(Schedule(5, 1), math.nan, total=6) == [*range(6)]


def test_the_report_shows_the_tolerance_and_what_happened():
    session = ForecastSession(Schedule(5, 1), FeMo(1), 12, tolerance=0.25)
    ran = drive(session, range(12), {"a": Network(0.0)})["a"]
    report = session.report(0.0)
    assert report.settings["tolerance"] == 0.25
    assert (report.settings["interval"], report.full_steps) == (5, tuple(ran))
    assert sorted((*report.full_steps, *report.predicted_steps)) == [*range(12)]


class ReadsBack(TorchDispatchMode):
    """Counts the values that are read back from the device, by step."""

    def __init__(self, session):
        super().__init__()
        self.session, self.count = session, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count[self.session.index] += "_local_scalar_dense" in str(function)
        return function(*args, **(kwargs or {}))


def test_one_value_of_each_stream_is_read_back_for_a_full_step():
    """When the step after it asks; those of the warm-up and the cool-down never."""
    session = ForecastSession(Schedule(4, 3, 2), REUSE, 16, tolerance=TOLERANCE)
    with ReadsBack(session) as reads:
        ran = drive(session, range(16), {"a": Network(0.0), "b": Network(0.0)})
    assert ran["a"] == [0, 1, 2, 6, 10, 14, 15]
    assert {step: count for step, count in reads.count.items() if count} == {3: 2, 7: 2, 11: 2}


def test_processes_that_share_a_feature_decide_alike():
    """Of the first half of it the forecast is right, of the second half far off."""
    halves = [torch.ones(1, 2), torch.ones(1, 2)]

    def run(own, share):
        session = ForecastSession(Schedule(6, 1), REUSE, 8, share=share, tolerance=TOLERANCE)
        ran = []
        for step in range(8):
            session.begin_step(step)
            if session.begin_call(["a"], ["x"]):
                continue
            ran.append(step)
            if session.wants_features("a"):
                session.record("a", {"x": halves[own] * (1 + own * step)})
        return ran, [row["error"] for row in session.report(0.0).errors]

    def whole(norms):
        """What an all-reduce would make of either half's: at step s the second half is 1 + s, and was s."""
        asked.append(norms.shape)
        step = len(asked)
        now, before, off = (1 + step) * 2**0.5, step * 2**0.5, 2**0.5
        return torch.tensor([[math.hypot(now, 2**0.5)], [math.hypot(before, 2**0.5)], [off]])

    found = []
    for own in (0, 1):
        asked = []
        found.append(run(own, whole))
        assert asked == [(3, 1)] * (len(found[-1][0]) - 1)  # one message for a full step
    assert found[0] == found[1]
    assert run(0, None)[0] != found[0][0]
