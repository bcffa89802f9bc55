"""Profiles, and what a run is to do by them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from femo_core import QUALITIES, FeMo, Profile, Quality, Recording, ScaledTaylor, TaylorSeer
from femo_core.profiles.profile import Tried
from femo_core.profiles.quality import MOST_SPEEDUP, budgets, by_recording, unknown


def levels(steps, top=1.0, shift=1.0):
    even = (top * (1 - step / steps) for step in range(steps + 1))
    return [shift * sigma / (1 + (shift - 1) * sigma) for sigma in even]


def recording(steps=20, speed=3.0, **changed):
    """A path through four dimensions that turns faster at high noise."""
    sigmas = levels(steps)
    angles = torch.tensor([speed * sigma**2 for sigma in sigmas[:-1]], dtype=torch.float64)
    v = torch.stack([angles.cos(), angles.sin(), (2 * angles).cos(), (3 * angles).sin()], 1)
    return Recording(**{"sigmas": sigmas, "signals": [1 - sigma for sigma in sigmas],
                        "matrix": (v @ v.T / 4).tolist(), **changed})


def plan(one, sigmas=None, quality="balanced"):
    sigmas = sigmas or one.sigmas
    asked = QUALITIES[quality] if isinstance(quality, str) else quality
    return by_recording(one, sigmas, [1 - sigma for sigma in sigmas], asked)


# Files

def test_a_profile_comes_back_as_it_was():
    tried = (Tried(7, (0, 3, 9), ScaledTaylor(factors=((0, 0.5), (3, 1.25))), 0.03, 0.02),
             Tried(6, (0, 3), FeMo(1, beta=-0.3), 0.03, 0.02), Tried(5, (0,), TaylorSeer(2), 0.03, 0.02))
    profile = Profile("Flux", (recording(tried=tried), recording(8, stochastic=True)), (0.25, -0.5))
    again = Profile.from_json(profile.to_json())
    assert again == profile
    assert again.recordings[0].tried == tried


@pytest.mark.parametrize("change", [
    {"sigmas": [1.0]}, {"signals": [0.0]}, {"matrix": [[1.0]]}, {"matrix": [[math.inf] * 2] * 2}, {"runs": 0},
    {"size": 0.0}, {"size": math.nan}, {"tried": [{}]}, {"tried": [{"predictor": {"kind": "Guess"}}]}])
def test_a_damaged_file_is_refused(change):
    content = json.loads(Profile("Flux", (recording(2),)).to_json())
    content["recordings"][0] |= change
    with pytest.raises(ValueError, match="damaged"):
        Profile.from_json(json.dumps(content))


def test_one_from_a_newer_pack_is_named():
    with pytest.raises(ValueError, match="of version 7, this pack reads 1 to 2"):
        Profile.from_json('{"version": 7}')


# Which recording serves

def test_a_recording_serves_the_levels_that_it_has_seen():
    whole, part = recording(20), recording(20, sigmas=levels(20, top=0.4))
    profile = Profile("Flux", (part, whole))
    assert profile.serving(levels(20)) is whole
    assert profile.serving(levels(50, shift=3.0)) is whole
    assert profile.serving(levels(10, top=0.3)) is not None
    assert Profile("Flux", (part,)).serving(levels(20)) is None
    assert Profile("Flux", (part,)).serving(levels(9, top=0.4)) is part


def test_an_expert_that_ends_early_tells_nothing_of_lower_levels():
    high = recording(10, sigmas=[1 - step / 50 for step in range(11)])
    profile = Profile("Wan", (high,))
    assert profile.serving(high.sigmas) is high
    assert profile.serving(levels(20)) is None


def test_a_last_step_that_hardly_counts_may_be_unknown():
    """As of the scheduler "normal", which goes down to the lowest level of the model before it goes to 0."""
    profile = Profile("Flux", (recording(16),))
    normal = [1 - 0.999 * step / 15 for step in range(16)]
    assert profile.serving([*normal, 0.0]) is not None
    assert profile.serving([1.0, 0.5, 0.02, 0.019, 0.0]) is not None
    assert Profile("Flux", (recording(16, sigmas=levels(16, shift=12.0)),)).serving(levels(20, shift=0.3)) is None


def test_levels_that_do_not_fall_are_not_covered():
    assert Profile("Flux", (recording(),)).serving([1.0, 0.5, 0.5, 0.0]) is None


def test_samplers_that_draw_noise_are_apart():
    profile = Profile("Flux", (recording(),))
    assert profile.serving(levels(20), stochastic=True) is None
    assert profile.with_recording(recording(stochastic=True)).serving(levels(20), stochastic=True).stochastic


def test_what_mixes_picture_and_noise_otherwise_is_passed_over():
    """At levels up to 1 these alone do not tell."""
    flow = recording()
    for profile, serves in ((Profile("m", (flow,)), True),
                            (Profile("m", (replace(flow, signals=[1.0] * 21),)), False)):
        assert (profile.serving(flow.sigmas, signals=flow.signals) is not None) is serves
        assert profile.serving(flow.sigmas) is not None


def test_another_hosts_words_for_a_model_are_believed():
    here, there = "Flux, Flux, FLUX, 0123", "diffusers: FluxTransformer2DModel, 4567"
    for model, asked, may in ((here, here, True), (here, there, True), (there, here, True), (there, there, True),
                              (here, "Wan, Wan, FLOW, 0123", False), (there, "diffusers: Wan, 4567", False)):
        assert Profile(model, (recording(),)).may_be_of(asked) is may


def test_a_new_recording_takes_the_place_of_one_at_the_same_levels():
    profile = Profile("Flux", (recording(20), recording(8)))
    assert len(profile.with_recording(recording(20, speed=2.0)).recordings) == 2
    assert len(profile.with_recording(recording(12)).recordings) == 3


# How many full steps

def test_less_change_takes_more_full_steps():
    one = recording(28)
    plans = {name: plan(one, quality=name) for name in QUALITIES}
    counts = [len(found.schedule.full_steps(28)) for found in plans.values()]
    assert counts == sorted(counts, reverse=True)
    for name, found in plans.items():
        assert found.expected_change <= QUALITIES[name].change or len(found.schedule.full_steps(28)) == 23
        assert found.expected_errors.keys() == set(found.schedule.full_steps(28)[1:])


@pytest.mark.parametrize("steps", [5, 6, 8, 10, 11, 20, 50, 100])
def test_budgets_are_between_eight_and_one_and_a_fifth_fold(steps):
    least, most = budgets(steps)
    assert 1 <= least <= most < steps
    assert steps / least <= (2 if steps <= 10 else MOST_SPEEDUP)
    assert steps / most >= 1.2 or most == least


def test_a_model_that_can_not_spare_a_step_runs_in_full_and_says_why():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(20, 64, generator=generator, dtype=torch.float64)
    found = plan(recording(matrix=(v @ v.T / 64).tolist()), quality="high")
    assert found.schedule.full_steps(20) == tuple(range(20))
    assert "2%" in found.reason


def test_a_lower_change_that_was_measured_takes_fewer_full_steps():
    one = recording(28)
    first = plan(one)
    budget = len(first.schedule.full_steps(28))
    found = plan(recording(28, tried=(Tried(budget, (0,), TaylorSeer(1), 0.1, 1.0),)))
    assert len(found.schedule.full_steps(28)) < budget


def test_what_was_tried_out_is_what_is_run():
    one = recording(28)
    budget = len(plan(one).schedule.full_steps(28))
    steps = tuple(range(budget))
    found = plan(recording(28, tried=(Tried(budget, steps, TaylorSeer(1), 0.05, 0.05),)))
    assert found.schedule.full_steps(28) == steps
    assert found.predictor == TaylorSeer(1)


@pytest.mark.parametrize("steps", range(5, 11))
@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0, 3.0, 8.0])
def test_few_steps_of_an_unknown_model_never_skip_two_in_a_row(steps, speedup):
    found = unknown(levels(steps), speedup)
    full = found.schedule.full_steps(steps)
    assert all(after - before <= 2 for before, after in zip(full, (*full[1:], steps), strict=True))
    assert full[:2] == (0, 1)
    assert full[-1] == steps - 1
    assert len(full) < steps


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_runs_are_full(steps):
    for found in (unknown(levels(steps), 3.0), plan(recording(), levels(steps))):
        assert found.schedule.full_steps(steps) == tuple(range(steps))
        assert found.reason == f"a run of {steps} steps has none to spare"


def test_levels_that_repeat_go_by_steps_alone():
    assert len(unknown([*levels(20)[:-1], 0.0, 0.0], 3.0).schedule.full_steps(21)) == 7


@pytest.mark.parametrize(("change", "speedup", "words"), [
    (-0.1, 2.0, "change must be 0 … 1"), (0.1, 1.0, "speedup must be 1.2 … 8"), (0.1, 9.0, "speedup must be 1.2 … 8")])
def test_what_can_not_be_asked_for(change, speedup, words):
    with pytest.raises(ValueError, match=words):
        Quality(change, speedup)
