"""What FeMo Auto does in a run: learns the model, or goes by what it has learned, or by nothing but noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ...femo_core import Quality, Recording
from ...femo_core.profiles.profile import LONGEST_RUN
from ...femo_core.profiles.quality import FULL_AT, Plan, by_recording, full, unknown
from ..cache_config import AutoConfig
from .full_steps import FullSteps, rows_of
from .profiles import Kept, find

LEARNING = "this run teaches the model's profile and is full; the next ones are accelerated"
_unlearnable: dict[tuple[str, str], str] = {}  # why no run of a model (its file) by a sampler could be learned from


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
    full_steps: FullSteps
    learns: bool = False


def decide(config: AutoConfig, model: Any, run: RunFacts) -> Decision:
    """model: ComfyUI's BaseModel. What can't be used costs a notice, never the run."""
    total = len(run.sigmas) - 1
    if config.learn == "off" or total <= FULL_AT or run.obstacle:
        return Decision(_full_steps(unknown(run.sigmas, config.quality.speedup), {"learned": config.learn}))
    kept = find(model)
    words = {"learned": "yes", "profile": kept.path.name}
    notices = (kept.notice,) if kept.notice else ()
    if recording := kept.profile and kept.profile.serving(run.sigmas, run.stochastic):
        try:
            return Decision(_full_steps(plan(recording, run, config.quality), words, notices))
        except (ValueError, ArithmeticError) as error:
            notices += (f"{kept.path.name} is not used, but a rule without it: {error}",)
    elif why := _why_not_learned(run, kept):
        notices += (f"nothing is learned, and a rule without it serves: {why}",)
    else:
        return Decision(_full_steps(full(LEARNING), {**words, "learned": "learning"}, notices), learns=True)
    return Decision(_full_steps(unknown(run.sigmas, config.quality.speedup), {"learned": "no"}, notices))


def plan(recording: Recording, run: RunFacts, quality: Quality) -> Plan:
    return _plan(recording, run.sigmas, run.signals, quality)


def could_not_learn(kept: Kept, run: RunFacts, why: str) -> None:
    """Until the server ends, runs of the model by this sampler go without."""
    _unlearnable[kept.path.name, run.sampler] = why


@lru_cache(maxsize=64)
def _plan(recording: Recording, sigmas: Sequence[float], signals: Sequence[float],
          quality: Quality) -> Plan:
    return by_recording(recording, sigmas, signals, quality)


def _full_steps(chosen: Plan, words: dict[str, Any], notices: tuple[str, ...] = ()) -> FullSteps:
    if chosen.expected_change:
        words = {**words, "expected_change": round(chosen.expected_change, 4)}
    return FullSteps(chosen.schedule, chosen.predictor, expected_errors=rows_of(chosen.expected_errors), guarded=True,
                     words=words, reason=chosen.reason, notices=notices)


def _why_not_learned(run: RunFacts, kept: Kept) -> str:
    total = len(run.sigmas) - 1
    if total > LONGEST_RUN:
        return f"a run of {total} steps is too long to learn from; one of at most {LONGEST_RUN} teaches the model"
    if not all(before > after for before, after in pairwise(run.sigmas)):
        return "this run's noise levels do not fall from step to step"
    return _unlearnable.get((kept.path.name, run.sampler), "")
