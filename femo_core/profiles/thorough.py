"""Learning thoroughly: ways to sample are tried out in closed loop, and the best is kept with the recording."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor

from ..predictor import AbstractPredictor
from ..schedule import AbstractSchedule
from ..tuning import MOST_TRIES, tune, tuning_runs
from .decision import RunFacts, plan
from .profile import Recording, Tried
from .quality import Quality

MOST_ROUNDS = 3  # of one number of full steps each

SampleAgain: TypeAlias = Callable[[AbstractSchedule, AbstractPredictor, int], Tensor]
"""Samples once more, on the noise and prompt of the full run; and the how-manieth try of its round it is, from 1 on.
Raises StoppedError to end it."""


class StoppedError(Exception):
    """Trying out was ended from outside."""


def try_out(learned: Recording, run: RunFacts, quality: Quality, wanted: Tensor, sample: SampleAgain,
            keep: Callable[[Recording], Any], say: Callable[[str, bool], None], seconds_full_step: float = 0.0) -> None:
    """What comes out may ask for another number of full steps: then these are tried out, too.

    wanted: the full run's result. keep: takes the recording after each round, with what was tried. say: takes a line,
        and whether it is a warning. seconds_full_step: by which it says how long it will take; 0 if unknown.
    """
    if run.stochastic:
        say("nothing is tried out with a sampler that draws noise anew: its runs are not comparable", False)
        return
    for _ in range(MOST_ROUNDS):
        chosen = plan(learned, run, quality)
        budget = len(chosen.schedule.full_steps(learned.steps))
        if chosen.reason or any(one.budget == budget for one in learned.tried):
            return
        runs = tuning_runs(budget)
        seconds = f", {runs * seconds_full_step:.0f} s" if seconds_full_step else ""
        say(f"tries out at most {MOST_TRIES} ways of {budget} full steps: about {runs} network runs, as many as "
            f"{runs / learned.steps:.1f} full runs{seconds}; interrupting keeps the best so far", False)
        tried = _one_round(learned, run, budget, wanted, sample, say)
        if not tried:
            return
        change, schedule, predictor = min(tried, key=lambda one: one[0])
        expected = chosen.expected_change * change / max(tried[0][0], 1e-9)  # the first was reckoned best
        try:
            best = Tried(budget, schedule.full_steps(learned.steps), predictor, change, expected)
            learned = replace(learned, tried=(*learned.tried, best))
            keep(learned)
        except (OSError, ValueError) as error:
            say(f"what was tried out could not be kept: {error}", True)
            return
        say(f"tried out {len(tried)} ways of {budget} full steps: the best changes {change:.1%}", False)


def _one_round(learned: Recording, run: RunFacts, budget: int, wanted: Tensor, sample: SampleAgain,
               say: Callable[[str, bool], None]) -> list[tuple[float, Any, Any]]:
    """Change, schedule and predictor of each way that was tried out; if it was ended early, of those so far."""
    tried: list[tuple[float, Any, Any]] = []

    def noted(schedule: Any, predictor: Any) -> float:
        result = sample(schedule, predictor, len(tried) + 1)
        change = math.sqrt(_square(result - wanted) / _square(wanted))
        tried.append((change, schedule, predictor))
        return change

    try:
        tune(learned.gram, run.sigmas, run.signals, budget, noted)
    except StoppedError as stop:
        say(str(stop), False)
    except Exception as error:
        say(f"trying out has failed: {error}", True)
    return tried


def _square(tensor: Tensor) -> float:
    return float(tensor.float().square().sum())
