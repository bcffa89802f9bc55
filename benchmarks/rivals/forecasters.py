"""Other papers' forecasters, to compare with: each is a few numbers over recorded features, as ours are.

`make bench-calibration` measures them: results/forecasters.md. None does better than TaylorSeer on the schedule that
suits it, so that femo_core has none of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.hermite import hermval
from torch import Tensor

from femo_core import TaylorSeer
from femo_core.predictor import AbstractPredictor, PredictorState, Row


@dataclass(frozen=True)
class HiCache(TaylorSeer):
    """TaylorSeer with kⁱ replaced by the scaled Hermite polynomial σⁱ·H_i(σ·k): Σ_i d^i · σⁱ·H_i(σk) / i!.

    Source: "HiCache: Training-free Acceleration of Diffusion Models via Hermite Polynomial-based Feature Caching"
    (ICLR 2026), σ = 0.5.
    """

    sigma: float = 0.5

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[float]:
        return [float(self.sigma**order * hermval(self.sigma * distance, np.eye(order + 1)[order])
                      / math.factorial(order)) for order in range(len(state.buffers))]


@dataclass(frozen=True)
class HistoryState(PredictorState):
    """steps: the full steps whose features are the buffers, the last first."""

    steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class AbstractHistory(AbstractPredictor):
    """Keeps the features themselves."""

    def init(self) -> PredictorState:
        return HistoryState()

    def update(self, state: PredictorState, feature: Tensor, step: float, norms: Tensor | None = None,
               reuse: bool = False) -> PredictorState:
        assert isinstance(state, HistoryState)
        steps = state.steps if step == state.step else (step, *state.steps)[: self.kept]
        return replace(super().update(state, feature, step, norms, reuse), steps=steps)

    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        """The new feature is put before the others."""
        return np.roll(np.eye(len(state.buffers) + 1), 1, axis=0)[: self.kept].tolist()

    @property
    def kept(self) -> int:
        return self.max_order + 1


@dataclass(frozen=True)
class DividedDifferences(AbstractHistory):
    """Newton's polynomial through the last max_order + 1 features, whatever the distances between them."""

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[float]:
        assert isinstance(state, HistoryState)
        wanted = state.step + distance
        return [math.prod((wanted - other) / (step - other) for other in state.steps if other != step)
                for step in state.steps]


@dataclass(frozen=True)
class Spectrum(AbstractHistory):
    """blend · (Chebyshev polynomials of degree up to max_order, fitted to all features so far) + (1 − blend) · (the
    line through the last two).

    The fit is a ridge regression, all coefficients punished alike; steps 0 … total_steps are mapped to −1 … 1.

    Source: "Adaptive Spectral Feature Forecasting for Diffusion Sampling Acceleration" (CVPR 2026); its blend is 1, its
    authors' code recommends 0.5 … 1.
    """

    max_order: int = 4
    ridge: float = 0.1
    blend: float = 0.5
    total_steps: int = 50

    @property
    def kept(self) -> int:
        return self.total_steps

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[float]:
        assert isinstance(state, HistoryState)
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
    """Spectrum's full steps: a warm-up, then every ⌊window⌋-th, the window growing by `growth` at each (App. B.1)."""
    full, last = list(range(warmup)), warmup - 1
    while (last := last + math.floor(window)) < steps:
        full.append(last)
        window = round(window + growth, 3)
    return tuple(full)
