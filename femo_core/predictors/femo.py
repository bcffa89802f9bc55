"""FeMo and Adapted-FeMo: a momentum of the finite differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .. import kernels
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
    adaptation: "sign" is the papers' rule, by γ. "least_squares" has no γ and is not the papers': ‖y − ŷ‖₂² is a
        parabola in the β that M^1 was last updated with; β becomes its lowest point, within the bounds, for each sample
        by itself. Until a second update of M^1 there is none, and `beta` serves. With "zero", M starts at its first
        derivative, which needs no correction. Keeps one buffer more, for O ≥ 1: what M^1 had gained, were β one more.

    Source: FeMo (ICLR 2026 manuscript), Eqs. 6–10; the adaptive rule, Eqs. 11–14; settings, App. C.

    Raises ValueError for a value outside its range, and for a beta outside its bounds where it adapts.
    """

    beta: float = 0.325
    gamma: float = 0.0
    beta_min: float = 0.2
    beta_max: float = 0.45
    momentum_start: Literal["zero", "feature"] = "zero"
    adaptation: Literal["sign", "least_squares"] = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "beta_min", "beta_max"):
            check_number(name, getattr(self, name), "between −1 and 1, both excluded", lambda value: -1.0 < value < 1.0)
        check_number("gamma", self.gamma, "0 or more (0 keeps beta fixed)", lambda value: value >= 0.0)
        if self.beta_min > self.beta_max:
            raise ValueError(f"beta_min must not exceed beta_max; got {self.beta_min} > {self.beta_max}")
        if self.momentum_start not in ("zero", "feature"):
            raise ValueError(f'momentum_start must be "zero" or "feature"; got {self.momentum_start!r}')
        if self.adaptation not in ("sign", "least_squares"):
            raise ValueError(f'adaptation must be "sign" or "least_squares"; got {self.adaptation!r}')
        if self != self.fixed and not self.beta_min <= self.beta <= self.beta_max:
            cause, remedy = ("gamma > 0", "gamma to 0") if self.adaptation == "sign" else (
                "adaptation is least_squares", "adaptation to sign")
            raise ValueError(
                f"beta must lie within beta_min … beta_max when {cause}; got {self.beta} outside "
                f"{self.beta_min} … {self.beta_max}: widen the bounds or set {remedy}")

    @property
    def fixed(self) -> FeMo:
        return self if self.gamma == 0.0 and self.adaptation == "sign" else replace(
            self, gamma=0.0, adaptation="sign")

    @property
    def buffer_count(self) -> int:
        return max(1, 2 * self.max_order) + self._fits()

    def init(self) -> PredictorState:
        return PredictorState(beta=self.beta, products=(1.0,) * self.max_order)

    def compared_norms(self, state: PredictorState, feature: Tensor, step: float) -> Tensor | None:
        """‖feature‖₂ and ‖forecast‖₂, (2, B), for the sign; for least squares three times ‖forecast − feature‖₂,
        (3, B): had M^1 been updated with β − 1, with β, with β + 1."""
        if self == self.fixed or not self._averaged(state):
            return None
        if not self._fits():
            return self.compare(state, feature, step)[:2]
        weights, stack = self._forecast(state, step)
        gained = step - state.step
        return torch.stack([kernels.compare([*weights[:-1], change * gained], stack, feature)[2]
                            for change in (-1.0, 0.0, 1.0)])

    def _prepare(self, state: PredictorState, norms: Tensor | None) -> PredictorState:
        if norms is not None:
            adapted = self._fitted_beta if self._fits() else self._adapted_beta
            state = replace(state, beta=adapted(state, norms))
        grown = min(state.updates, self.max_order)
        products = [p * state.beta if order < grown else p for order, p in enumerate(state.products)]
        return replace(state, products=tuple(products))

    def _adapted_beta(self, state: PredictorState, norms: Tensor) -> Tensor:
        """Eqs. 11–14, per sample: (B,)."""
        direction = torch.nan_to_num(torch.sign(norms[0] - norms[1]), nan=0.0)  # a NaN must not stick to beta for good
        return torch.clamp(state.beta + self.gamma * direction, self.beta_min, self.beta_max)

    def _fitted_beta(self, state: PredictorState, norms: Tensor) -> Tensor:
        """The lowest point of the parabola through three squared errors, per sample: (B,)."""
        below, here, above = norms.square()
        curvature = (below - 2.0 * here + above).clamp_min(0.0)  # rounding may make it negative
        change = (below - above) / (2.0 * curvature)
        change = torch.where(change.isfinite(), change, 0.0)  # all β forecast alike, or there was a NaN
        return torch.clamp(state.beta + change, self.beta_min, self.beta_max)

    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        known, momenta = self._stored(state)
        derivatives = derivative_rows(known, self.max_order, step - state.step, len(state.buffers) + 1)
        rows: list[Row] = [*derivatives[: max(1, self.max_order)]]
        for order, derivative in enumerate(derivatives[1:], start=1):
            beta = 0.0 if self._fits() and order > momenta else state.beta
            row: list[Weight] = [(1.0 - beta) * weight if weight else 0.0 for weight in derivative]
            if order <= momenta:
                row[known + order - 1] = beta
            rows.append(row)
        if not state.updates and self._starts_at_feature():
            rows.append([1.0])
        if self._fits() and state.updates:
            rows.append(self._gain(state, derivatives[1], known))
        return rows

    def _gain(self, state: PredictorState, slope: list[float], momentum: int) -> Row:
        """M^1 before the update − d^1: what M^1 gains by β. At the first derivative it is not looked at.

        M^1 would start there, or hold a feature, which has nothing to say about slopes.
        """
        if not self._averaged(state):
            return [0.0] * len(slope)
        row = [-weight for weight in slope]
        row[momentum] += 1.0
        return row

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[Weight]:
        known, _ = self._stored(state)
        weights: list[Weight] = [1.0, *[0.0] * (len(state.buffers) - 1)]
        corrects = self.momentum_start == "zero" and not self._fits()
        for order in range(1, self._averaged(state) + 1):
            weight = taylor_weight(distance, order)
            weights[known + order - 1] = weight / (1.0 - state.products[order - 1]) if corrects else weight
        return weights

    def _averaged(self, state: PredictorState) -> int:
        """How many momenta have been updated with a derivative at least once."""
        return min(max(0, state.updates - 1), self.max_order)

    def _stored(self, state: PredictorState) -> tuple[int, int]:
        """The stack is d^0 … d^{known−1}, M^1 … M^momenta and, for least squares, what M^1 gained: how many of each."""
        known = min(state.updates, max(1, self.max_order))
        gained = self._fits() and self._averaged(state) > 0
        return known, len(state.buffers) - known - gained

    def _fits(self) -> bool:
        return self.adaptation == "least_squares" and self.max_order > 0

    def _starts_at_feature(self) -> bool:
        return self.momentum_start == "feature" and self.max_order > 0
