"""Where in a run a noise level stands."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

SNAP = 0.01  # of a step: samplers start at 0.99997 instead of 1, and round
NEAR = 1.25  # times a level at most, or as small a part of it, a network is told in its place


class StepClock:
    """Noise level -> step coordinate, by linear interpolation between the levels of this run.

    sigmas: the run's levels, one more than steps, that fall steadily, or rise (from a picture to its noise). Samplers
    that evaluate the model between two steps get fractions, those that evaluate a level twice get the same coordinate
    twice. Other levels given by hand (repeated, up and down) have no inverse: then a step is what the sampler's
    callback is called for, or an evaluation, where it is not called. Past the last step all is full.

    Some samplers tell the network another level than the one they are at (Detail Daemon, Lying Sigma), above or below.
    Their callbacks show it: they come for steps 0, 1, 2 … after as many evaluations each, and the last of these, which
    begins the step, is near its level, but not at it. (Of samplers that choose their own steps, dpm_fast for one, it is
    far from it before long.) From then on steps go by the callbacks.
    """

    def __init__(self, sigmas: Sequence[float]):
        self.total_steps = max(0, len(sigmas) - 1)
        self._ascending: list[float] | None = None
        self._sign = 1 if self.total_steps and sigmas[0] < sigmas[-1] else -1
        if _fall_steadily(sigmas) or _fall_steadily(sigmas[::-1]):
            self._ascending = [self._sign * sigma for sigma in sigmas]
        self._evaluations = self._callbacks = 0
        self._since = 0  # evaluations since the last callback
        self._each = 0  # evaluations from one callback to the next; 0: not known yet
        self._regular = True  # whether callbacks have come as described
        self._misled = False  # about the level

    def step(self, sigma: float) -> float:
        """The coordinate, from 0 on, of the next evaluation, at noise level `sigma`."""
        self._evaluations += 1
        self._since += 1
        if self._ascending is None:
            return float(self._callbacks or self._evaluations - 1)
        step = self._by_level(self._ascending, sigma)
        return self._by_callbacks(self._ascending, sigma, step) if self._regular else step

    def told(self, index: int) -> bool:
        """The sampler's callback is called for a step. Whether the last evaluation was that step's first."""
        expected = self._each or (self._since if self._callbacks else 1)
        self._regular = self._regular and index == self._callbacks and self._since == expected
        if self._callbacks:
            self._each = self._since
        self._callbacks += 1
        self._since = 0
        return self._regular

    def _by_level(self, ascending: list[float], sigma: float) -> float:
        level = self._sign * sigma
        after = bisect_right(ascending, level)
        if after == 0:
            return 0.0
        if after == len(ascending):
            return float(self.total_steps)
        below, above = ascending[after - 1], ascending[after]
        step = after - 1 + (level - below) / (above - below)
        return float(round(step)) if abs(step - round(step)) < SNAP else step

    def _by_callbacks(self, ascending: list[float], sigma: float, by_level: float) -> float:
        """Where the sampler is, if it is not at the level that it tells."""
        due = self._callbacks  # the step whose first evaluation comes next, after what else the one before has
        if due == 0:  # before it all, there is but a first evaluation
            return by_level if by_level >= 1 or self._evaluations > 1 else 0.0
        begins = self._since == self._each
        if begins:
            level = self._sign * ascending[min(due, self.total_steps)]
            if not level / NEAR < sigma < level * NEAR:
                self._regular = False
                return by_level
            self._misled = self._misled or not by_level.is_integer()
        if not self._misled:
            return by_level
        return float(due) if begins else min(max(by_level, due - 1.0), float(due))


def _fall_steadily(levels: Sequence[float]) -> bool:
    return all(a > b for a, b in pairwise(levels)) and all(map(math.isfinite, levels))


def coordinates_of(times: Sequence[float]) -> list[float] | None:
    """Of each noise level of a run, how far it is from the first, in units of a step's mean change.

    times: the levels that steps start from, as the network is told them (σ of flow models, the timestep of others).
    None where they neither fall nor rise steadily: then there is no going by them.
    """
    if len(times) < 2 or not (_fall_steadily(times) or _fall_steadily(times[::-1])):
        return None
    scale = (len(times) - 1) / (times[0] - times[-1])
    return [(times[0] - time) * scale for time in times]


def interpolated(values: Sequence[float], step: float) -> float:
    """Between the values at whole steps."""
    below = min(math.floor(step), len(values) - 2)
    return values[below] + (step - below) * (values[below + 1] - values[below])
