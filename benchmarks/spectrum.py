"""Spectrum's forecaster and schedule, to compare with: "Adaptive Spectral Feature Forecasting for Diffusion Sampling
Acceleration" (CVPR 2026), Sec. 3 and App. B.1, settings as its authors' code recommends them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from femo_core.predictor import AbstractPredictor, PredictorState, Row


@dataclass(frozen=True)
class SpectrumState(PredictorState):
    """steps: the full steps, the last first, one for each buffer."""

    steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class Spectrum(AbstractPredictor):
    """blend · (Chebyshev polynomials of degree up to max_order, fitted to all features so far) + (1 − blend) · (the
    line through the last two).

    The fit is a ridge regression, all coefficients punished alike; steps 0 … total_steps are mapped to −1 … 1.
    Keeps every feature.
    """

    max_order: int = 4
    ridge: float = 0.1
    blend: float = 0.5
    total_steps: int = 50

    def init(self) -> PredictorState:
        return SpectrumState()

    def _prepare(self, state: PredictorState, feature: Tensor, step: float) -> PredictorState:
        assert isinstance(state, SpectrumState)
        return replace(state, steps=(step, *state.steps))

    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        """The new feature is put before the others."""
        return np.roll(np.eye(len(state.buffers) + 1), 1, axis=0).tolist()

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[float]:
        assert isinstance(state, SpectrumState)
        basis = chebvander(2 * np.array(state.steps) / self.total_steps - 1, self.max_order)
        wanted = chebvander(2 * (state.step + distance) / self.total_steps - 1, self.max_order)
        penalty = self.ridge * np.eye(self.max_order + 1)
        weights = self.blend * (wanted @ np.linalg.solve(basis.T @ basis + penalty, basis.T)).ravel()
        weights[0] += 1 - self.blend
        if len(state.steps) > 1:
            slope = (1 - self.blend) * distance / (state.steps[0] - state.steps[1])
            weights[:2] += slope, -slope
        return weights.tolist()


def spectrum_steps(steps: int, growth: float, window: float = 2.0, warmup: int = 5) -> tuple[int, ...]:
    """Its full steps: a warm-up, then every ⌊window⌋-th, the window growing by `growth` at each."""
    full, last = list(range(warmup)), warmup - 1
    while (last := last + math.floor(window)) < steps:
        full.append(last)
        window = round(window + growth, 3)
    return tuple(full)
