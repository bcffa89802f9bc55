"""What every predictor is: a few numbers per full step and per predicted step, over a stack of buffers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from . import kernels
from .errors import StateError, check_integer
from .kernels import Weight

Row: TypeAlias = Sequence[Weight]
"""A buffer's next value as weights of the present buffers and, last, of the new feature."""

MAX_ORDER = 4


@dataclass(frozen=True)
class PredictorState:
    """What a predictor remembers after its full steps. Never changed: `update` returns the next one.

    stack: the buffers S, (K, B, ...) in the feature's dtype; the first is the last recorded feature. None: none yet.
    step: coordinate of the last full step. updates: how many distinct ones there were.
    gains: b of the last update S ← A·S + b·F, needed when that step is recorded again.
    beta, products: FeMo's weight of history, and per order the product of the weights used so far.
    """

    stack: Tensor | None = None
    step: float = math.nan
    updates: int = 0
    gains: tuple[Weight, ...] = ()
    beta: Weight = 0.0
    products: tuple[Weight, ...] = ()

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """Each (B, ...)."""
        return () if self.stack is None else self.stack.unbind(0)

    @property
    def nbytes(self) -> int:
        return 0 if self.stack is None else self.stack.nbytes

    def to(self, device: torch.device) -> PredictorState:
        """The same with its buffers on another device."""
        return self if self.stack is None else replace(self, stack=self.stack.to(device))


@dataclass(frozen=True)
class AbstractPredictor(ABC):
    """Forecasts a feature between full steps. Linear in the recorded features: S ← A·S + b·F, forecast c·S.

    A subclass gives A and b (`_rows`) and c (`_forecast_weights`) as numbers; tensors are touched in kernels/ alone.
    A is lower triangular, so that buffers can be overwritten from the last to the first.
    """

    max_order: int = 1

    def __post_init__(self) -> None:
        check_integer("max_order", self.max_order, 0, MAX_ORDER)

    @property
    def fixed(self) -> AbstractPredictor:
        """The same with weights that stay what they are at the start: what a Gram matrix can foretell."""
        return self

    def init(self) -> PredictorState:
        """The state before any full step."""
        return PredictorState()

    def update(self, state: PredictorState, feature: Tensor, step: float, norms: Tensor | None = None,
               reuse: bool = False) -> PredictorState:
        """The state after a full step with `feature`, (B, ...) of any floating dtype, at coordinate `step` (steps).

        A coordinate equal to the last one replaces that anchor (an adapted β stays as its first feature decided it).
        The caller's tensor is neither kept nor changed.

        norms: what `compared_norms` gives, if known already.
        reuse: `state` is used up, its buffers become those of the new one: nothing is allocated once all of them exist.

        Raises StateError if shape, dtype or device differ from the recorded ones.
        """
        step = _coordinate(step)
        _check_feature(state, feature)
        if state.updates and step == state.step:
            rows = _replacement_rows(state.gains)
        else:
            state = self._prepare(state, self.compared_norms(state, feature, step) if norms is None else norms)
            rows = self._rows(state, step)
            state = replace(state, step=step, updates=state.updates + 1, gains=tuple(row[-1] for row in rows))
        return replace(state, stack=kernels.transform(rows, state.stack, feature, reuse))

    def predict(self, state: PredictorState, step: float, out: Tensor | None = None) -> Tensor:
        """The feature forecast for coordinate `step`, a fresh tensor of the recorded shape, dtype and device, or `out`.

        Raises StateError before the first update.
        """
        return kernels.combine(*self._forecast(state, step), out)

    def predict_added(self, state: PredictorState, step: float, to: Tensor, gate: Tensor,
                      out: Tensor | None = None) -> Tensor:
        """to + gate · forecast, fresh or as `out`, in one pass: `to` as the feature, (B, T, D), gate (B or 1, 1, D).

        What a predicted step needs where features are added to a hidden state behind a gate (adaLN-Zero, DiT, Sec. 3).
        """
        return kernels.add_gated(to, gate, *self._forecast(state, step), out)

    def compare(self, state: PredictorState, feature: Tensor, step: float) -> Tensor:
        """‖feature‖₂, ‖forecast‖₂ and ‖forecast − feature‖₂ of each sample at coordinate `step`: (3, B).

        Raises StateError as `update` and `predict` do.
        """
        _check_feature(state, feature)
        return kernels.compare(*self._forecast(state, step), feature)

    def compare_reuse(self, state: PredictorState, feature: Tensor) -> Tensor:
        """As `compare`, of the last recorded feature in the forecast's place."""
        _check_feature(state, feature)
        _, stack = self._forecast(state, state.step)
        return kernels.compare([1.0], stack[:1], feature)

    def _forecast(self, state: PredictorState, step: float) -> tuple[list[Weight], Tensor]:
        """The weights c and the stack S of a forecast c·S."""
        if state.stack is None:
            raise StateError("nothing to forecast from: predict needs a state with at least one update")
        return self._forecast_weights(state, _coordinate(step) - state.step), state.stack

    def compared_norms(self, state: PredictorState, feature: Tensor, step: float) -> Tensor | None:
        """‖·‖₂ of what the update at `step` goes by, such as the feature and its forecast: (n, B); else None.

        Processes that each hold a part of the feature put theirs together before they update (`parallel.py`).
        """
        del state, feature, step
        return None

    def _prepare(self, state: PredictorState, norms: Tensor | None) -> PredictorState:
        """The state with its weights (not its buffers) made ready for an update with these `compared_norms`."""
        del norms
        return state

    @property
    def buffer_count(self) -> int:
        """How many buffers of a feature's size a state comes to."""
        return self.max_order + 1

    @abstractmethod
    def _rows(self, state: PredictorState, step: float) -> list[Row]:
        """(A | b) of the update at `step`."""

    @abstractmethod
    def _forecast_weights(self, state: PredictorState, distance: float) -> list[Weight]:
        """c of a forecast `distance` steps after the last full step."""


def derivative_rows(known: int, max_order: int, length: float, width: int) -> list[list[float]]:
    """Rows of the finite-difference derivatives d^0, d^1, … (TaylorSeer, Eqs. 4–7).

    d^0 = F and d^i = (d^{i−1} − d'^{i−1}) / length, as far as the previous full step knew that order: its `known`
    derivatives d'^0 … are the first buffers. `width` counts the buffers and the feature.
    """
    rows = [[0.0] * width]
    rows[0][-1] = 1.0
    for order in range(1, min(known, max_order) + 1):
        row = rows[-1].copy()
        row[order - 1] -= 1.0
        rows.append([weight / length for weight in row])
    return rows


def taylor_weight(distance: float, order: int) -> float:
    """k^i / i!"""
    return distance**order / math.factorial(order)


def _replacement_rows(gains: Sequence[Weight]) -> list[Row]:
    """S + b·(F − S₀): by linearity, the state as if the last full step had recorded F instead of S₀."""
    width = len(gains) + 1
    rows: list[Row] = []
    for index, gain in enumerate(gains):
        row: list[Weight] = [0.0] * width
        row[index] = 1.0
        row[0] = row[0] - gain
        row[-1] = gain
        rows.append(row)
    return rows


def _coordinate(step: float) -> float:
    if isinstance(step, Tensor) or not math.isfinite(step):
        raise ValueError(f"step must be a finite int or float (a tensor would be read back); got {step!r}")
    return float(step)


def _check_feature(state: PredictorState, feature: Tensor) -> None:
    if not feature.is_floating_point() or feature.ndim == 0:
        got = f"{feature.dtype} {tuple(feature.shape)}"
        raise StateError(f"feature must be a floating-point tensor (B, ...); got {got}")
    for known in state.buffers[:1]:
        now = (tuple(feature.shape), feature.dtype, feature.device)
        before = (tuple(known.shape), known.dtype, known.device)
        if now != before:
            raise StateError(f"feature is {now}, but the state was recorded with {before}: start from predictor.init()")
