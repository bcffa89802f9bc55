"""Noise levels σ of a run: checks, and a Gram matrix learned at some of them, for others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

SAME_LEVEL = 1e-3  # of the highest: a run may start that much above what was learned
POINTS = 4  # that an interpolation goes by


def check_sigmas(name: str, sigmas: Sequence[float]) -> tuple[float, ...]:
    """The levels as floats. Raises ValueError, naming `name`, unless there are two or more, finite, falling, none < 0.
    """
    levels = tuple(float(sigma) for sigma in sigmas)
    if len(levels) < 2:
        raise ValueError(f"{name} must be two levels or more, one more than there are steps; got {len(levels)}")
    for before, after in pairwise(levels):
        if not (math.isfinite(before) and math.isfinite(after) and before > after >= 0.0):
            raise ValueError(
                f"{name} must be finite, 0 or more and fall from step to step; got {before} before {after}")
    return levels


def check_gram(gram: Tensor, steps: int) -> Tensor:
    """As float64 on the CPU. Raises ValueError unless it is (steps, steps) and finite."""
    matrix = torch.as_tensor(gram, dtype=torch.float64, device="cpu")
    if matrix.shape != (steps, steps):
        raise ValueError(f"gram must be ({steps}, {steps}), a row for each step; got {tuple(matrix.shape)}")
    if not bool(matrix.isfinite().all()):
        raise ValueError("gram must be finite: the run that it comes from gave NaN or infinity")
    return matrix


def resample_gram(gram: Tensor, sigmas: Sequence[float], to_sigmas: Sequence[float]) -> Tensor:
    """A Gram matrix learned at one set of noise levels, at another's: (T, T) float64.

    gram: (S, S), as of TrajectoryGram.matrix. sigmas: the S + 1 levels that it was learned at, to_sigmas: the T + 1
    wanted; both fall. What the features would be at a wanted level is a weighted sum of those at the four learned
    levels about it, by Lagrange's polynomial: over σ for flow models (levels up to 1), over log σ where σ is the
    ratio of noise to picture; of the variables tried, schedules for other levels came out best by these. Below the
    lowest learned level features follow the line through the last two, for the length of one step; what lies lower
    still is taken as there, which is a guess: see `uncovered`.

    Raises ValueError for levels that do not fall, for a matrix that does not fit them or is not finite, for less than
    two learned steps, and for a wanted level above the highest that was learned.
    """
    learned, wanted = check_sigmas("sigmas", sigmas), check_sigmas("to_sigmas", to_sigmas)
    matrix = check_gram(gram, len(learned) - 1)
    weights = resampling_weights(learned, wanted)
    return weights @ matrix @ weights.T


def resampling_weights(sigmas: Sequence[float], to_sigmas: Sequence[float]) -> Tensor:
    """(T, S) float64: of the features at S learned levels for those at T wanted ones, as of `resample_gram`.

    Raises ValueError for less than two learned steps and for a wanted level above the highest that was learned.
    """
    if len(sigmas) < 3:
        raise ValueError("sigmas must be of two steps or more: one says nothing of how features change")
    if not reaches(sigmas, to_sigmas):
        raise ValueError(f"to_sigmas must not exceed {sigmas[0]:g}, the highest level learned; got {to_sigmas[0]:g}: "
                         "learn from a run that starts there")
    places = _places(sigmas[:-1], sigmas)
    return torch.stack([_weights(places, place) for place in _places(to_sigmas[:-1], sigmas)])


def reaches(sigmas: Sequence[float], to_sigmas: Sequence[float]) -> bool:
    """Whether what was learned at `sigmas` begins high enough for a run at `to_sigmas`; of how low, see `uncovered`."""
    return to_sigmas[0] <= sigmas[0] * (1 + SAME_LEVEL)


def uncovered(sigmas: Sequence[float], to_sigmas: Sequence[float]) -> tuple[float, ...]:
    """Of the levels that a run's steps start at, those too low for what was learned at `sigmas` to say much of them."""
    learned, wanted = check_sigmas("sigmas", sigmas), check_sigmas("to_sigmas", to_sigmas)
    if len(learned) < 3:
        return wanted[:-1]
    before, last = _places(learned[-3:-1], learned)
    return tuple(sigma for sigma, place in zip(wanted, _places(wanted[:-1], learned), strict=False)
                 if place > 2 * last - before + 1e-9)


def _places(levels: Sequence[float], learned: Sequence[float]) -> list[float]:
    """Rising, in the variable that a trajectory is smoothest in."""
    return [-sigma if learned[0] <= 1.0 + SAME_LEVEL else -math.log(max(sigma, 1e-12)) for sigma in levels]


def _weights(places: Sequence[float], wanted: float) -> Tensor:
    """(S,): of the features at the rising `places` for the one `wanted`."""
    count = len(places)
    weights = torch.zeros(count, dtype=torch.float64)
    if wanted > places[-1]:
        share = min(1.0, (wanted - places[-1]) / (places[-1] - places[-2]))
        weights[-1], weights[-2] = 1 + share, -share
        return weights
    wanted = max(wanted, places[0])
    above = next((index for index, place in enumerate(places) if place >= wanted), count - 1)
    first = min(max(above - POINTS // 2, 0), max(count - POINTS, 0))
    chosen = range(first, min(first + POINTS, count))
    for one in chosen:
        weights[one] = math.prod((wanted - places[other]) / (places[one] - places[other])
                                 for other in chosen if other != one)
    return weights
