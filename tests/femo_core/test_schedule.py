import pytest

from femo_core import Schedule

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
