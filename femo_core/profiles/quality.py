"""How many full steps a run gets, and which: the fewest that keep the picture's change at what was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..calibration import expected_forecast_errors
from ..errors import check_number
from ..noise_levels import resample_gram
from ..predictor import AbstractPredictor
from ..predictors.taylorseer import TaylorSeer
from ..presets import RAMP
from ..schedule import AbstractSchedule, ExplicitSchedule, RampSchedule, Schedule
from ..tuning import tune, tune_to
from .profile import Recording

LEAST_SPEEDUP, MOST_SPEEDUP = 1.2, 8.0
FULL_AT = 4  # runs of so few steps are not accelerated
CHANGE = 0.7  # of the median picture, over the expected error; on the two older small models, tuning seeds
FEW_STEPS = 10  # of so many at least half are full, and nothing is known of two skips in a row


@dataclass(frozen=True)
class Quality:
    """What is asked for: a change of the result to keep to, or, where that is 0, a speed-up.

    change: ‖result − full run's‖ / ‖full run's‖ of the sampler's result. speedup: the steps of a run over its full
    ones; with a change, what serves as long as nothing is known.

    Raises ValueError for numbers out of range.
    """

    change: float
    speedup: float

    def __post_init__(self) -> None:
        check_number("change", self.change, "0 … 1", lambda value: 0 <= value <= 1)
        check_number("speedup", self.speedup, f"{LEAST_SPEEDUP:g} … {MOST_SPEEDUP:g}",
                     lambda value: LEAST_SPEEDUP <= value <= MOST_SPEEDUP)


QUALITIES = {"high": Quality(0.02, 1.5), "balanced": Quality(0.05, 2.0), "fast": Quality(0.10, 3.0)}


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    expected_change: as Quality.change, 0 where it is not known. expected_errors: of the forecasts for its full steps,
    relative. reason: why all steps are full, else "".
    """

    schedule: AbstractSchedule
    predictor: AbstractPredictor
    expected_change: float = 0.0
    expected_errors: Mapping[int, float] = field(default_factory=dict[int, float])
    reason: str = ""


def by_recording(recording: Recording, sigmas: Sequence[float], signals: Sequence[float], quality: Quality) -> Plan:
    """For a run at levels that the recording covers. signals: the picture's factor in x at each of them.

    Raises ValueError as `resample_gram` and `tune` do.
    """
    total = len(sigmas) - 1
    if total <= FULL_AT:
        return full(_too_few(total))
    least, most = budgets(total)
    same = recording.same_levels(sigmas)
    gram = recording.gram if same else resample_gram(recording.gram, recording.sigmas, sigmas)
    factor = CHANGE * recording.change_factor / recording.size
    if quality.change:
        found = tune_to(gram, sigmas, signals, quality.change / factor, least)
    else:
        found = tune(gram, sigmas, signals, asked_budget(total, quality.speedup))
    budget = len(found.schedule.steps)
    if quality.change and budget >= total - 1:
        return full(f"{quality.change:.0%} of change is too little for this model in {total} steps: a step fewer is "
                    "expected to change more")
    if quality.change and budget > most:
        found = tune(gram, sigmas, signals, most)
    if len(found.schedule.steps) == total:
        return full("fewer network runs are expected to do worse than fewer steps")
    if same and (tried := next((one for one in recording.tried if one.budget == budget), None)):
        schedule, predictor, change = ExplicitSchedule(tried.steps, total), tried.predictor, tried.change
    else:
        schedule, predictor, change = found.schedule, found.predictor, found.expected_error * factor
    return Plan(schedule, predictor, change, expected_forecast_errors(gram, schedule.steps, predictor))


def unknown(sigmas: Sequence[float], speedup: float) -> Plan:
    """For a run of a model of which nothing is known. Levels that do not fall steadily go by steps alone."""
    total = len(sigmas) - 1
    if total <= FULL_AT:
        return full(_too_few(total))
    budget = asked_budget(total, speedup)
    if total <= FEW_STEPS:
        skipped = range(total - 2, 1, -2)[: total - budget]
        return Plan(ExplicitSchedule(tuple(step for step in range(total) if step not in skipped), total), RAMP)
    return Plan(RampSchedule.along(budget, sigmas), RAMP)


def full(reason: str) -> Plan:
    """The network runs on every step."""
    return Plan(Schedule(1), TaylorSeer(0), reason=reason)


def budgets(total: int) -> tuple[int, int]:
    """The fewest full steps of a run, and the most."""
    least = math.ceil(total / (2 if total <= FEW_STEPS else MOST_SPEEDUP))
    return least, max(least, math.floor(total / LEAST_SPEEDUP))


def asked_budget(total: int, speedup: float) -> int:
    least, most = budgets(total)
    return min(max(round(total / speedup), least), most)


def _too_few(total: int) -> str:
    return f"a run of {total} steps has none to spare"
