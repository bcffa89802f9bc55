"""FeMo and Adapted-FeMo: a momentum of the finite differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import check_number
from ..kernels import Weight
from ..predictor import AbstractPredictor, PredictorState, Row, derivative_rows, taylor_weight


@dataclass(frozen=True)
class FeMo(AbstractPredictor):
    """FeMo: F + Σ_i M̂^i · k^i / i!, with M^i ← β·M^i + (1−β)·d^i at each full step.

    d^i is TaylorSeer's raw finite difference, never a difference of momenta; β = 0 is TaylorSeer bit for bit.

    max_order O, 0 … 4: the highest derivative. Keeps max(1, 2·O) buffers.
    beta β, −1 < β < 1: the weight of history. Positive smooths a noisy trajectory, negative leans ahead on a smooth
        one.
    gamma γ, 0 or more: Adapted-FeMo's step. At each full step at which M^1 has been updated before, the forecast ŷ for
        that step is compared with the feature y: β ← clamp(β + γ·sign(‖y‖₂ − ‖ŷ‖₂), beta_min, beta_max), for each
        sample by itself, before M is updated with it. γ = 0 keeps β fixed, and then the bounds are not used.
    beta_min, beta_max: bounds of the adaptive β, −1 < beta_min ≤ beta_max < 1.
    momentum_start: "zero" starts M at 0 and divides by 1 − Πβ over the updates, so that the weights sum to 1 (Eq. 10).
        "feature" is the text of App. C and F taken literally: M^1 starts at the first recorded feature, M^2 … at 0,
        without a correction. Either way a forecast before the first derivative is F alone.

    Source: FeMo (ICLR 2026 manuscript), Eqs. 6–10; the adaptive rule, Eqs. 11–14; settings, App. C.

    Raises ValueError for a value outside its range, and for a beta outside its bounds where gamma > 0.
    """

    beta: float = 0.325
    gamma: float = 0.0
    beta_min: float = 0.2
    beta_max: float = 0.45
    momentum_start: Literal["zero", "feature"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "beta_min", "beta_max"):
            check_number(name, getattr(self, name), "between −1 and 1, both excluded", lambda value: -1.0 < value < 1.0)
        check_number("gamma", self.gamma, "0 or more (0 keeps beta fixed)", lambda value: value >= 0.0)
        if self.beta_min > self.beta_max:
            raise ValueError(f"beta_min must not exceed beta_max; got {self.beta_min} > {self.beta_max}")
        if self.gamma > 0.0 and not self.beta_min <= self.beta <= self.beta_max:
            raise ValueError(
                f"beta must lie within beta_min … beta_max when gamma > 0; got {self.beta} outside "
                f"{self.beta_min} … {self.beta_max}: widen the bounds or set gamma to 0")
        if self.momentum_start not in ("zero", "feature"):
            raise ValueError(f'momentum_start must be "zero" or "feature"; got {self.momentum_start!r}')

    @property
    def buffer_count(self) -> int:
        return max(1, 2 * self.max_order)

    def init(self) -> PredictorState:
        return PredictorState(beta=self.beta, products=(1.0,) * self.max_order)

    def compared_norms(self, state: PredictorState, feature: Tensor, step: float) -> Tensor | None:
        if self.gamma == 0.0 or not self._averaged(state):
            return None
        return self.compare(state, feature, step)[:2]

    def _prepare(self, state: PredictorState, norms: Tensor | None) -> PredictorState:
        if norms is not None:
            state = replace(state, beta=self._adapted_beta(state, norms))
        grown = min(state.updates, self.max_order)
        products = [p * state.beta if order < grown else p for order, p in enumerate(state.products)]
        return replace(state, products=tuple(products))

    def _adapted_beta(self, state: PredictorState, norms: Tensor) -> Tensor:
        """Eqs. 11–14, per sample: (B,)."""
        direction = torch.nan_to_num(torch.sign(norms[0] - norms[1]), nan=0.0)  # a NaN must not stick to beta for good
        return torch.clamp(state.beta + self.gamma * direction, self.beta_min, self.beta_max)

    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        known, momenta = self._stored(state)
        derivatives = derivative_rows(known, self.max_order, step - state.step, known + momenta + 1)
        rows: list[Row] = [*derivatives[: max(1, self.max_order)]]
        for order, derivative in enumerate(derivatives[1:], start=1):
            row: list[Weight] = [(1.0 - state.beta) * weight if weight else 0.0 for weight in derivative]
            if order <= momenta:
                row[known + order - 1] = state.beta
            rows.append(row)
        if not state.updates and self._starts_at_feature():
            rows.append([1.0])
        return rows

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[Weight]:
        known, momenta = self._stored(state)
        weights: list[Weight] = [1.0, *[0.0] * (known - 1 + momenta)]
        for order in range(1, self._averaged(state) + 1):
            weight = taylor_weight(distance, order)
            corrected = weight / (1.0 - state.products[order - 1]) if self.momentum_start == "zero" else weight
            weights[known + order - 1] = corrected
        return weights

    def _averaged(self, state: PredictorState) -> int:
        """How many momenta have been updated with a derivative at least once."""
        return min(max(0, state.updates - 1), self.max_order)

    def _stored(self, state: PredictorState) -> tuple[int, int]:
        """The stack is d^0 … d^{known−1}, then M^1 … M^momenta: how many of each there are."""
        known = min(state.updates, max(1, self.max_order))
        return known, len(state.buffers) - known

    def _starts_at_feature(self) -> bool:
        return self.momentum_start == "feature" and self.max_order > 0
