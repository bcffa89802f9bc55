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
from .noise_levels import resample_gram, uncovered
from .predictor import AbstractPredictor, PredictorState
from .predictors.femo import FeMo
from .predictors.scaled_taylor import ScaledTaylor
from .predictors.taylorseer import TaylorSeer
from .profiles.profile import Profile, Recording
from .profiles.quality import QUALITIES, Quality
from .report import RunReport
from .schedule import AbstractSchedule, ExplicitSchedule, RampSchedule, Schedule
from .session import ForecastSession
from .tuning import tune, tune_to, tuning_runs

__all__ = [
    "QUALITIES",
    "AbstractPredictor",
    "AbstractSchedule",
    "Calibration",
    "ExplicitSchedule",
    "FeMo",
    "FeatureCache",
    "ForecastSession",
    "PredictorState",
    "Profile",
    "Quality",
    "RampSchedule",
    "Recording",
    "RunReport",
    "ScaledTaylor",
    "Schedule",
    "StateError",
    "TaylorSeer",
    "TrajectoryGram",
    "calibrate",
    "calibrate_schedule",
    "expected_error",
    "expected_forecast_errors",
    "lasting_step_lengths",
    "resample_gram",
    "tune",
    "tune_to",
    "tuning_runs",
    "uncovered",
]
