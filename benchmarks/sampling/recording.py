"""A full run of a small model, and what it tells of the trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import femo_core
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.solvers import Solver, euler
from benchmarks.sampling.subjects import Job, Level, Subject
from femo_core import Schedule, TaylorSeer, TrajectoryGram, lasting_step_lengths


@dataclass(frozen=True)
class Recording:
    """Of S steps of B pictures. x: (S, B, …) at unit variance. v: (S, B, …), its guided output. gram: of v.

    sigmas: S + 1 noise levels. signals: the picture's factor in x at each. size: root mean square of the result.
    """

    pixels: Tensor
    x: Tensor
    v: Tensor
    gram: Tensor
    sigmas: list[float]
    signals: list[float]
    size: float = 1.0

    @property
    def told(self) -> femo_core.Recording:
        """What FeMo Auto keeps of it."""
        return femo_core.Recording(
            tuple(self.sigmas), tuple(self.signals), tuple(map(tuple, self.gram.tolist())), size=self.size)

    @property
    def lengths(self) -> list[float]:
        return [before - after for before, after in pairwise(self.sigmas)]

    @property
    def lasting(self) -> list[float]:
        return lasting_step_lengths(self.sigmas, self.signals)


def record(subject: Subject, job: Job, steps: int = 50, solver: Solver = euler,
           levels: Sequence[Level] | None = None) -> Recording:
    gram, xs, vs, sigmas = TrajectoryGram(), list[Tensor](), list[Tensor](), list[float]()

    def watched(derivative: Callable[[int, Tensor], Tensor], x: Tensor, given: Sequence[float]) -> Tensor:
        sigmas.extend(given)

        def recorded(step: int, x: Tensor) -> Tensor:
            v = derivative(step, x)
            gram.record(step, v)
            xs.append(x / math.hypot(subject.signal(given[step]), given[step]))
            vs.append(v.clone())
            return v
        return solver(recorded, x, given)

    result, _ = sample(subject, job, steps, TaylorSeer(0), Schedule(1), solver=watched, levels=levels)
    gram.close()
    return Recording(subject.pixels(result), torch.stack(xs), torch.stack(vs), gram.matrix, sigmas,
                     [subject.signal(sigma) for sigma in sigmas], float(result.square().mean().sqrt()))
