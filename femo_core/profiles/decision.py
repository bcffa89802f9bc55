"""What a run does with what is known of its model: goes by it, teaches it, or goes by a rule that needs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..plans.full_steps import FullSteps
from .profile import LONGEST_RUN, Profile, Recording
from .quality import Plan, Quality, by_recording, full, unknown

LEARNING = "this run teaches the model's profile and is full; the next ones are accelerated"


@dataclass(frozen=True)
class RunFacts:
    """Of the run that is about to start. signals: as of `Recording`. stochastic: the sampler draws noise anew.
    obstacle: what keeps it from being accelerated, and from being learned from, or ""."""

    sampler: str
    sigmas: tuple[float, ...]
    signals: tuple[float, ...]
    stochastic: bool
    obstacle: str


@dataclass(frozen=True)
class Decision:
    """learned: "yes", "learning" or "no". notices: what did not go as one would wish."""

    plan: Plan
    learned: str
    notices: tuple[str, ...] = ()

    def after(self, notice: str) -> Decision:
        """With what went wrong before, or nothing did: ""."""
        return replace(self, notices=(notice, *self.notices)) if notice else self

    def full_steps(self, profile: str = "") -> FullSteps:
        """profile: what a report calls it."""
        words: dict[str, Any] = {"learned": self.learned}
        if profile and self.learned in ("yes", "learning"):
            words["profile"] = profile
        if self.plan.expected_change:
            words["expected_change"] = round(self.plan.expected_change, 4)
        return FullSteps(self.plan.schedule, self.plan.predictor, expected_errors=self.plan.expected_errors,
                         guarded=True, words=words, reason=self.plan.reason, notices=self.notices)


def decide(profile: Profile | None, name: str, run: RunFacts, quality: Quality, why_not_learned: str = "") -> Decision:
    """For a run of more steps than FULL_AT, by a profile if there is one, which is told of by `name`.

    why_not_learned: why the host can't learn from such a run, or "".
    """
    notices: tuple[str, ...] = ()
    why = why_not_learned or _why_not_learned(run.sigmas)
    if recording := profile and profile.serving(run.sigmas, run.stochastic, run.signals):
        try:
            return Decision(plan(recording, run, quality), "yes")
        except (ValueError, ArithmeticError) as error:
            notices = (f"{name} is not used, but a rule without it: {error}",)
    elif why:
        notices = (f"nothing is learned, and a rule without it serves: {why}",)
    else:
        return Decision(full(LEARNING), "learning")
    return Decision(unknown(run.sigmas, quality.speedup), "no", notices)


def plan(recording: Recording, run: RunFacts, quality: Quality) -> Plan:
    """As `by_recording`, reckoned once."""
    return _plan(recording, run.sigmas, run.signals, quality)


@lru_cache(maxsize=64)
def _plan(recording: Recording, sigmas: Sequence[float], signals: Sequence[float], quality: Quality) -> Plan:
    return by_recording(recording, sigmas, signals, quality)


def forecast(recording: Recording, run: RunFacts, quality: Quality) -> str:
    """Of the runs to come, in words."""
    try:
        chosen = plan(recording, run, quality)
    except (ValueError, ArithmeticError):
        return "the next runs are accelerated"
    full_steps = len(chosen.schedule.full_steps(recording.steps))
    return chosen.reason or (f"a run like this one takes {full_steps} network runs of {recording.steps}, with about "
                             f"{chosen.expected_change:.1%} of change expected")


def _why_not_learned(sigmas: Sequence[float]) -> str:
    total = len(sigmas) - 1
    if total > LONGEST_RUN:
        return f"a run of {total} steps is too long to learn from; one of at most {LONGEST_RUN} teaches the model"
    if not all(before > after for before, after in pairwise(sigmas)):
        return "this run's noise levels do not fall from step to step"
    return ""
