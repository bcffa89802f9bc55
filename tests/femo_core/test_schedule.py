from itertools import pairwise

import pytest

from femo_core import RampSchedule, Schedule

# The papers' FLOPs columns: full steps of 50.
FLUX = {3: 18, 4: 14, 5: 12, 6: 10, 7: 9, 8: 8, 9: 8, 10: 7}
DIT = {3: 18, 4: 14, 5: 11, 6: 10, 7: 8, 8: 8, 9: 7}


@pytest.mark.parametrize(("warmup", "interval", "count"),
                         [(3, n, c) for n, c in FLUX.items()] + [(2, n, c) for n, c in DIT.items()])
def test_full_steps_of_the_papers_tables(warmup, interval, count):
    assert len(Schedule(interval, warmup).full_steps(50)) == count


def test_the_steps_themselves():
    assert Schedule(6, 3).full_steps(50) == (0, 1, 2, 8, 14, 20, 26, 32, 38, 44)
    assert Schedule(6, 3, 1).full_steps(50) == (0, 1, 2, 8, 14, 20, 26, 32, 38, 44, 49)
    assert Schedule(3, 1, 2).full_steps(8) == (0, 3, 6, 7)


def test_no_more_predicted_steps_in_a_row_than_allowed():
    assert Schedule(6, 3, max_consecutive=3).full_steps(20) == (0, 1, 2, 6, 8, 12, 14, 18)
    assert Schedule(6, 3, max_consecutive=1).full_steps(9) == (0, 1, 2, 4, 6, 8)
    assert Schedule(6, 3, max_consecutive=5).full_steps(50) == Schedule(6, 3).full_steps(50)


def test_interval_one_is_full():
    assert Schedule(1).full_steps(7) == tuple(range(7))


@pytest.mark.parametrize("total", [0, 1, 2, 3])
def test_a_run_no_longer_than_the_warmup_is_full(total):
    assert Schedule(6, 3).full_steps(total) == tuple(range(total))


def test_a_cooldown_longer_than_the_run_is_full():
    assert Schedule(6, 3, 100).full_steps(10) == tuple(range(10))


@pytest.mark.parametrize(("warmup", "first"), [(1, 0), (2, 0), (3, 1), (5, 3)])
def test_first_recorded_step_makes_the_first_derivative_appear_at_the_end_of_the_warmup(warmup, first):
    assert Schedule(6, warmup).first_recorded_step == first


@pytest.mark.parametrize(("arguments", "words"), [
    ({"interval": 0}, "interval must be 1 or more; got 0"),
    ({"interval": 2.5}, "interval must be a whole number"),
    ({"interval": True}, "interval must be a whole number"),
    ({"warmup_steps": 0}, "warmup_steps must be 1 or more; got 0"),
    ({"cooldown_steps": -1}, "cooldown_steps must be 0 or more; got -1"),
    ({"max_consecutive": -1}, "max_consecutive must be 0 or more; got -1"),
])
def test_bad_input_names_parameter_value_and_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**arguments)


def test_a_negative_run_is_refused():
    with pytest.raises(ValueError, match="total_steps"):
        Schedule().full_steps(-1)


# Ramp

def test_the_steps_of_a_ramp():
    assert RampSchedule(9).full_steps(50) == (0, 1, 2, 6, 10, 15, 22, 30, 40)
    assert RampSchedule(4).full_steps(8) == (0, 1, 2, 4)
    assert RampSchedule(1).full_steps(5) == (0,)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 8, 12, 20, 28, 50, 100, 1000])
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 8, 20, 49, 2000])
def test_a_ramp_has_its_budget_and_its_gaps_grow(total, budget):
    for sigmas in ((), tuple(3 * (1 - i / total) / (1 + 2 * (1 - i / total)) for i in range(total + 1))):
        steps = RampSchedule(budget, sigmas).full_steps(total)
        assert len(steps) == min(budget, total)
        assert steps[0] == 0
        assert all(before < after for before, after in pairwise((*steps, total)))
        gaps = [after - before for before, after in pairwise(steps[:-1])]
        assert all(before <= after + 1 for before, after in pairwise(gaps))  # rounding is worth a step


def test_a_long_last_step_is_full():
    shifted = (1.0, 0.9, 0.75, 0.5, 0.0)
    assert RampSchedule(3, shifted).full_steps(4) == (0, 1, 3)
    assert RampSchedule(3, (1.0, 0.4, 0.2, 0.1, 0.0)).full_steps(4) == (0, 1, 2)
    assert RampSchedule(3, shifted).full_steps(8) == RampSchedule(3).full_steps(8)  # levels of another run


@pytest.mark.parametrize(("total", "budget"), [(50, 14), (28, 11), (20, 9), (12, 7), (8, 6), (4, 4), (3, 3), (1, 1)])
def test_a_budget_that_suits_the_number_of_steps(total, budget):
    assert len(RampSchedule.suited(total).full_steps(total)) == budget


def test_a_report_says_of_a_schedule_what_was_asked_for():
    assert RampSchedule(3, (1.0, 0.5, 0.0)).settings == {"budget": 3}
    assert Schedule(6, 3, 1).settings == {
        "interval": 6, "warmup_steps": 3, "cooldown_steps": 1, "max_consecutive": 0}


def test_what_no_ramp_can_be():
    with pytest.raises(ValueError, match="budget must be 1 or more; got 0"):
        RampSchedule(0)
    with pytest.raises(ValueError, match=r"sigmas must be finite, 0 or more and fall.*got 0.5 before 0.7"):
        RampSchedule(3, (1.0, 0.5, 0.7, 0.0))
    with pytest.raises(ValueError, match="total_steps must be 1 or more; got 0"):
        RampSchedule.suited(0)
