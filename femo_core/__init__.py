"""Feature forecasting for diffusion transformers: run the network on every N-th step, forecast its features between.

Depends on torch and the standard library alone; knows nothing of ComfyUI.
"""

from .cache import FeatureCache
from .calibration import (
    Calibration,
    TrajectoryGram,
    calibrate,
    calibrate_schedule,
    expected_error,
    expected_forecast_errors,
    lasting_step_lengths,
)
from .errors import StateError
from .predictor import AbstractPredictor, PredictorState
from .predictors.femo import FeMo
from .predictors.taylorseer import TaylorSeer
from .report import RunReport
from .schedule import AbstractSchedule, ExplicitSchedule, Schedule
from .session import ForecastSession

__all__ = [
    "AbstractPredictor",
    "AbstractSchedule",
    "Calibration",
    "ExplicitSchedule",
    "FeMo",
    "FeatureCache",
    "ForecastSession",
    "PredictorState",
    "RunReport",
    "Schedule",
    "StateError",
    "TaylorSeer",
    "TrajectoryGram",
    "calibrate",
    "calibrate_schedule",
    "expected_error",
    "expected_forecast_errors",
    "lasting_step_lengths",
]
