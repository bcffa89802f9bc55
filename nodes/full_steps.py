"""Which steps of a run are full: those of a calibration, or else the interval's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from ..femo_core import Calibration, ExplicitSchedule, Schedule, calibrate, expected_forecast_errors
from ..femo_core.predictor import AbstractPredictor
from ..femo_core.schedule import AbstractSchedule
from .calibration_file import NONE, SavedCalibration, fingerprint, read


@dataclass(frozen=True)
class FullSteps:
    """What was chosen.

    calibration: the file it goes by, or "none". expected_errors: as in RunReport. notices: what did not go as asked.
    """

    schedule: AbstractSchedule
    calibration: str = NONE
    expected_errors: tuple[dict[str, Any], ...] = ()
    notices: tuple[str, ...] = ()


def choose(name: str, budget: int, interval: Schedule, predictor: AbstractPredictor, model: Any,
           sigmas: Sequence[float]) -> FullSteps:
    """For one run. What can't be used costs the user a notice, never the run: then the interval serves.

    name: the calibration's. budget: how many full steps; 0: as many as the interval would give. model: ComfyUI's
    BaseModel. sigmas: the run's noise levels.
    """
    if name == NONE or interval.interval == 1:
        return FullSteps(interval)
    total = len(sigmas) - 1
    try:
        saved = read(name)
        if saved.model != (this := fingerprint(model)):
            raise ValueError(f"it is of another model ({saved.model}; this one is {this})")
        found = _calibrated(saved, min(budget or len(interval.full_steps(total)), saved.steps), _linear(predictor))
    except (OSError, ValueError) as error:
        return FullSteps(interval, notices=(f"calibration {name} is not used, but the interval: {error}",))
    schedule = ExplicitSchedule(found.schedule.full_steps(total), total)  # scaled ones are now this run's own
    notices: list[str] = []
    if total != saved.steps:
        notices.append(f"calibration {name} is of {saved.steps} steps: its full steps stand at the same parts of these "
                       f"{total}; FeMo Calibrate at {total} steps finds better ones")
    elif not saved.same_levels(sigmas):
        notices.append(f"calibration {name} is of other noise levels (scheduler, shift or denoise): its full steps may "
                       "not suit this run")
    if found.predictor != predictor:
        notices.append(f"calibration {name} goes by a fixed beta; how gamma moves it can't be foretold")
    errors = {} if total != saved.steps else expected_forecast_errors(
        torch.tensor(saved.matrix, dtype=torch.float64), schedule.steps, found.predictor)
    return FullSteps(schedule, name, tuple({"step": step, "error": error} for step, error in errors.items()),
                     tuple(notices))


@lru_cache(maxsize=32)
def _calibrated(saved: SavedCalibration, budget: int, predictor: AbstractPredictor) -> Calibration:
    return calibrate(torch.tensor(saved.matrix, dtype=torch.float64), saved.step_weights, budget, (predictor,))


def _linear(predictor: AbstractPredictor) -> AbstractPredictor:
    """With a β that stays: one that adapts to what it sees can't be foretold."""
    return replace(predictor, gamma=0.0) if getattr(predictor, "gamma", 0.0) else predictor
