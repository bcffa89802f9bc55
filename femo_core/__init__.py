"""Feature forecasting for diffusion transformers: run the network on every N-th step, forecast its features between.

Depends on torch and the standard library alone; knows nothing of ComfyUI.
"""

from .cache import FeatureCache
from .errors import StateError
from .predictor import AbstractPredictor, PredictorState
from .predictors.femo import FeMo
from .predictors.taylorseer import TaylorSeer
from .report import RunReport
from .schedule import Schedule
from .session import ForecastSession

__all__ = [
    "AbstractPredictor",
    "FeMo",
    "FeatureCache",
    "ForecastSession",
    "PredictorState",
    "RunReport",
    "Schedule",
    "StateError",
    "TaylorSeer",
]
