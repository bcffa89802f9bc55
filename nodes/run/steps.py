"""Where in a run a noise level stands."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

SNAP = 0.01  # of a step: samplers start at 0.99997 instead of 1, and round


class StepClock:
    """Noise level -> step coordinate, by linear interpolation between the levels of this run.

    sigmas: the run's levels, one more than steps. Samplers that evaluate the model between two steps get fractions,
    those that evaluate a level twice get the same coordinate twice. Levels given by hand that do not fall steadily
    (repeated, rising) have no inverse: then evaluations are counted, one a step. Past the last step all is full.
    """

    def __init__(self, sigmas: Sequence[float]):
        self.total_steps = max(0, len(sigmas) - 1)
        self._ascending = [-sigma for sigma in sigmas] if _fall_steadily(sigmas) else None
        self._evaluations = 0

    def step(self, sigma: float) -> float:
        """The coordinate, from 0 on, of the next evaluation, at noise level `sigma`."""
        self._evaluations += 1
        if self._ascending is None:
            return float(self._evaluations - 1)
        after = bisect_right(self._ascending, -sigma)
        if after == 0:
            return 0.0
        if after == len(self._ascending):
            return float(self.total_steps)
        below, above = self._ascending[after - 1], self._ascending[after]
        step = after - 1 + (-sigma - below) / (above - below)
        return float(round(step)) if abs(step - round(step)) < SNAP else step


def _fall_steadily(levels: Sequence[float]) -> bool:
    return all(a > b for a, b in pairwise(levels)) and all(map(math.isfinite, levels))


def coordinates_of(times: Sequence[float]) -> list[float] | None:
    """Of each noise level of a run, how far it has fallen from the first, in units of a step's mean fall.

    times: the levels that steps start from, as the network is told them (σ of flow models, the timestep of others).
    None where they do not fall steadily: then there is no going by them.
    """
    if len(times) < 2 or not _fall_steadily(times):
        return None
    scale = (len(times) - 1) / (times[0] - times[-1])
    return [(times[0] - time) * scale for time in times]


def interpolated(values: Sequence[float], step: float) -> float:
    """Between the values at whole steps."""
    below = min(math.floor(step), len(values) - 2)
    return values[below] + (step - below) * (values[below + 1] - values[below])
