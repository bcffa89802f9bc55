"""ScaledTaylor: a line through the last two full steps whose slope counts for a factor of its own in each gap."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from itertools import pairwise

from ..errors import check_number
from ..kernels import Weight
from ..predictor import PredictorState
from .taylorseer import TaylorSeer


@dataclass(frozen=True)
class ScaledTaylor(TaylorSeer):
    """ScaledTaylor: F + a · d^1 · k, with TaylorSeer's d^1 and a factor a for each full step, as `tune` fits them.

    factors: (step, a) pairs, ascending steps: a holds for forecasts from that full step, and from later ones up to the
        next pair. Before the first, and without any, a is 1: TaylorSeer, O = 1. It is *not* adaptive: the factors are
        fitted beforehand, to the sum of a gap's forecasts on a full run.
    max_order: 1, or 0 for reuse.

    Raises ValueError for another max_order, for steps that do not ascend, and for a factor that is not finite.
    """

    max_order: int = 1
    factors: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", tuple((int(step), float(factor)) for step, factor in self.factors))
        if self.max_order > 1:
            raise ValueError(f"max_order must be 0 or 1 for ScaledTaylor, which has one slope; got {self.max_order}")
        if any(before[0] >= after[0] for before, after in pairwise(self.factors)):
            raise ValueError(f"factors must be of ascending steps; got {self.factors}")
        for step, factor in self.factors:
            check_number(f"the factor of step {step}", factor, "finite", math.isfinite)

    def _forecast_weights(self, state: PredictorState, distance: float) -> list[Weight]:
        weights = super()._forecast_weights(state, distance)
        known = bisect.bisect_right(self.factors, state.step, key=lambda pair: pair[0])
        if known and len(weights) > 1:
            weights[1] = weights[1] * self.factors[known - 1][1]
        return weights
