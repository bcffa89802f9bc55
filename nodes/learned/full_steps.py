"""Which steps of a run are full: those of a calibration, or those that suit the number of steps, or the interval's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...femo_core import (
    Calibration,
    ExplicitSchedule,
    Profile,
    RampSchedule,
    Recording,
    calibrate,
    expected_forecast_errors,
)
from ...femo_core.plans.full_steps import FullSteps
from ...femo_core.predictor import AbstractPredictor
from ..cache_config import NONE, CacheConfig
from .calibration_file import read
from .identity import fingerprint


def choose(config: CacheConfig, model: Any, sigmas: Sequence[float]) -> FullSteps:
    """For one run. What can't be used costs the user a notice, never the run: then the schedule of `config` serves.

    model: ComfyUI's BaseModel. sigmas: the run's noise levels.
    """
    name, total = config.calibration, len(sigmas) - 1
    without = _without_calibration(config, sigmas)
    if name == NONE or (config.schedule and config.schedule.interval == 1):
        return without
    try:
        profile = read(name)
        if profile.model != (this := fingerprint(model)):
            raise ValueError(f"it is of another model ({profile.model}; this one is {this})")
        saved = _nearest(profile, sigmas)
        budget = config.budget or len(without.schedule.full_steps(total))
        found = _calibrated(saved, min(budget, saved.steps), config.predictor.fixed)
    except (OSError, ValueError, ArithmeticError) as error:
        return replace(without, notices=(
            *without.notices, f"calibration {name} is not used, but the interval: {error}"))
    schedule = ExplicitSchedule(found.schedule.full_steps(total), total)  # scaled ones are now this run's own
    errors = expected_forecast_errors(saved.gram, schedule.steps, found.predictor) if total == saved.steps else {}
    return FullSteps(
        schedule, config.predictor, words={"calibration": name}, expected_errors=errors,
        notices=tuple(f"calibration {name} {words}" for words in _doubts(config, saved, sigmas)))


def _nearest(profile: Profile, sigmas: Sequence[float]) -> Recording:
    """The recording of the run's levels, or else of its number of steps, or else the first."""
    return max(profile.recordings, key=lambda one: (one.same_levels(sigmas), one.steps == len(sigmas) - 1))


def _without_calibration(config: CacheConfig, sigmas: Sequence[float]) -> FullSteps:
    words = {"calibration": NONE}
    if config.schedule:
        return FullSteps(config.schedule, config.predictor, config.tolerance, words=words)
    notices = ("tolerance is not used with interval 0, which has no widest gap: set an interval for it",)
    return FullSteps(suited_ramp(sigmas), config.predictor, words=words, notices=notices if config.tolerance else ())


def suited_ramp(sigmas: Sequence[float]) -> RampSchedule:
    """For a run at these levels."""
    return RampSchedule.along(RampSchedule.suited(max(1, len(sigmas) - 1)).budget, sigmas)


def _doubts(config: CacheConfig, saved: Recording, sigmas: Sequence[float]) -> Iterator[str]:
    """How the run differs from what its full steps were chosen for."""
    total = len(sigmas) - 1
    if total != saved.steps:
        yield (f"is of {saved.steps} steps: its full steps stand at the same parts of these {total}; FeMo Calibrate at "
               f"{total} steps finds better ones")
    elif not saved.same_levels(sigmas):
        yield "is of other noise levels (scheduler, shift or denoise): its full steps may not suit this run"
    if config.predictor.fixed != config.predictor or config.coordinate != "steps":
        yield ("is reckoned for a fixed beta and for forecasts that go by steps; what adaptation and sigmas make of it "
               "is not known")
    if config.tolerance:
        yield f"says which steps are full: tolerance {config.tolerance:g} is not used; set calibration to none for it"


@lru_cache(maxsize=32)
def _calibrated(saved: Recording, budget: int, predictor: AbstractPredictor) -> Calibration:
    return calibrate(saved.gram, saved.step_weights, budget, (predictor,))
