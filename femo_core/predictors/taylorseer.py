"""TaylorSeer: a Taylor series of finite differences."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels import Weight
from ..predictor import AbstractPredictor, PredictorState, Row, derivative_rows, taylor_weight


@dataclass(frozen=True)
class TaylorSeer(AbstractPredictor):
    """TaylorSeer: Σ_i d^i · k^i / i!, with d^i the finite differences between full steps.

    max_order O, 0 … 4: the highest derivative. O = 0 reuses the last feature (FORA). The order grows by one with each
    full step until it reaches O. Keeps O + 1 buffers. It is *not* a fit: it passes through the last full step exactly.

    Source: "From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers" (ICCV 2025), Eqs. 4–10.
    """

    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        known = len(state.buffers)
        return [*derivative_rows(known, self.max_order, step - state.step, known + 1)]

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[Weight]:
        return [taylor_weight(distance, order) for order in range(len(state.buffers))]
