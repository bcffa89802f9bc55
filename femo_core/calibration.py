"""Which steps are worth running the network on, from one full run.

A forecaster is linear in the recorded features, so its error at any step, from any set of full steps, is a quadratic
form in the Gram matrix of the true trajectory: the mean inner products of what the model gave at each pair of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor

from .errors import check_integer, check_number
from .gap_costs import gap_costs
from .noise_levels import check_gram
from .predictor import AbstractPredictor
from .predictors.taylorseer import TaylorSeer
from .schedule import ExplicitSchedule

# Steps that the search which follows the dynamic programme moves a full step by, and several in a row.
SINGLE_MOVES, ROW_MOVES = (-1, 1, -2, 2, -3, 3), (-1, 1)

# Chosen for both small models together, on the benchmarks' tuning seeds: benchmarks/results/calibration_cost.md.
DATA_SPREAD = 8.0  # standard deviation of what errors last in, a picture's broadest features; a model's numbers have ~1
GAP_CORRELATION = 0.75  # how far errors of different gaps point the same way


class TrajectoryGram:
    """Inner products of a run's features, taken as they come.

    `record` each step's feature, the model's guided output, of a run in which the network ran on every step. Features
    are kept (S of them, in float32, on their device) until `close`; nothing is read back before `matrix`.
    """

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._features)

    def record(self, step: int, feature: Tensor) -> None:
        """Takes the feature, (B, ...), of step 0, 1, 2, …; it is copied.

        Raises ValueError for a step out of turn or another shape than before.
        """
        if step != len(self._features):
            raise ValueError(f"step must be {len(self._features)}, the next one; got {step}")
        wide = feature.detach().to(torch.float64 if feature.dtype == torch.float64 else torch.float32, copy=True)
        if self._features and self._features[0].shape != wide.shape:
            raise ValueError(f"feature must be {tuple(self._features[0].shape)} as before; got {tuple(wide.shape)}")
        self._features.append(wide)
        flat = wide.flatten()
        self._rows.append(torch.stack([torch.dot(flat, other.flatten()) for other in self._features]) / flat.numel())

    @property
    def matrix(self) -> Tensor:
        """(S, S) float64 on the CPU: mean inner products, symmetric."""
        steps = len(self._rows)
        matrix = torch.zeros(steps, steps, dtype=torch.float64)
        for step, row in enumerate(self._rows):
            matrix[step, : step + 1] = row.double().cpu()
        return matrix + matrix.tril(-1).T

    def close(self) -> None:
        """Frees the features; `matrix` stays."""
        self._features.clear()


def lasting_step_lengths(sigmas: Sequence[float], signals: Sequence[float], spread: float = DATA_SPREAD) -> list[float]:
    """Step weights: how much of an error in each step's dx/dσ is left at the end of the run.

    sigmas: the S + 1 noise levels, the last 0. signals: the picture's factor in x at each of them, so that x is signal
    · picture + σ · noise: 1 − σ of flow models, 1 where noise is added to the picture as it is. spread s: see below.

    An error made at high noise is mended by the network at later steps. By how much is known of Gaussian data with
    standard deviation s, of which the perfect network keeps every x at its quantile: a shift δ of x at level σ ends as
    δ / √(signal² + (σ / s)²).

    Raises ValueError unless there are as many signals as sigmas.
    """
    if len(sigmas) != len(signals):
        raise ValueError(f"signals must be {len(sigmas)}, as many as sigmas; got {len(signals)}")
    return [abs(after - before) / math.hypot(signal, after / spread)
            for (before, after), signal in zip(pairwise(sigmas), signals[1:], strict=True)]


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and the error that it is expected to have.

    expected_error: of the sampler's result, root mean square, in the features' units times the step weights' (of flow
        models: the latent's).
    """

    schedule: ExplicitSchedule
    predictor: AbstractPredictor
    expected_error: float


def calibrate(gram: Tensor, step_weights: Sequence[float], budget: int, predictors: Sequence[AbstractPredictor],
              gap_correlation: float = GAP_CORRELATION) -> Calibration:
    """The best of the predictors, each with the schedule of `budget` full steps that suits it best.

    gram: (S, S), as of TrajectoryGram.matrix. step_weights: S numbers, as of `lasting_step_lengths`.
    gap_correlation ρ, 0 … 1: errors within a gap e are added before squaring, because they point the same way; those
        of different gaps do so in part: ρ ‖Σ e‖² + (1 − ρ) Σ ‖e‖².

    Exact with ρ = 0 for TaylorSeer O = 0 and 1, whose forecasts depend on the last two full steps: dynamic programming.
    For all else full steps are moved, from there, as long as it helps.

    Raises ValueError for a budget that is not 1 … S, a gap_correlation out of range, for matrices and weights that do
    not fit, and for an adaptive predictor, which is not linear.
    """
    problem = _Problem(gram, step_weights, gap_correlation)
    check_integer("budget", budget, 1, problem.total)
    found: list[Calibration] = []
    starts: dict[int, tuple[int, ...]] = {}  # by order, 0 or 1: TaylorSeer's
    for predictor in predictors:
        if predictor != predictor.fixed:
            raise ValueError(f"predictors must be linear: gamma must be 0 and adaptation sign; got {predictor}")
        order = min(predictor.max_order, 1)
        if order not in starts:
            starts[order] = gap_costs(problem.gram, step_weights, slope=order).best_steps(budget)
            if gap_correlation:
                starts[order] = problem.improved(starts[order], TaylorSeer(order))
        steps = starts[order]
        if predictor != TaylorSeer(order):
            steps = problem.improved(steps, predictor)
        error = problem.cost(steps, predictor) ** 0.5
        found.append(Calibration(ExplicitSchedule(steps, problem.total), predictor, error))
    return min(found, key=lambda one: one.expected_error)


def calibrate_schedule(gram: Tensor, step_weights: Sequence[float], budget: int,
                       predictor: AbstractPredictor) -> ExplicitSchedule:
    """The schedule of `budget` full steps that suits the predictor best: see `calibrate`."""
    return calibrate(gram, step_weights, budget, (predictor,)).schedule


def expected_error(gram: Tensor, step_weights: Sequence[float], steps: Sequence[int], predictor: AbstractPredictor,
                   gap_correlation: float = GAP_CORRELATION) -> float:
    """Of any schedule, in the terms of `Calibration`."""
    return _Problem(gram, step_weights, gap_correlation).cost(tuple(steps), predictor) ** 0.5


def expected_forecast_errors(gram: Tensor, steps: Sequence[int], predictor: AbstractPredictor) -> dict[int, float]:
    """By full step, but the first: what would be forecast there against the truth, relative to it.

    What a run measures at its full steps (RunReport.errors), but of guided outputs. gram: (S, S).
    """
    truth = torch.eye(len(gram), dtype=torch.float64)
    state, found = predictor.init(), dict[int, float]()
    for step in steps:
        feature = truth[step : step + 1]
        if state.updates and gram[step, step] > 0:
            error = predictor.predict(state, step) - feature
            found[step] = (max(0.0, float(error @ gram @ error.T)) / float(gram[step, step])) ** 0.5
        state = predictor.update(state, feature, step)
    return found


class _Problem:
    def __init__(self, gram: Tensor, step_weights: Sequence[float], gap_correlation: float = GAP_CORRELATION):
        check_number("gap_correlation", gap_correlation, "0 … 1", lambda value: 0.0 <= value <= 1.0)
        self.gap_correlation = gap_correlation
        self.weights = torch.as_tensor(step_weights, dtype=torch.float64, device="cpu")
        self.total = len(self.weights)
        self.gram = check_gram(gram, self.total)
        if not bool(self.weights.isfinite().all()):
            raise ValueError("step_weights must be finite: the run that they come from gave NaN or infinity")

    def cost(self, steps: tuple[int, ...], predictor: AbstractPredictor) -> float:
        """ρ ‖Σ e‖² + (1 − ρ) Σ ‖e‖², e = Σ weight · (forecast − truth) of a gap: the predictor run on unit vectors."""
        truth = torch.eye(self.total, dtype=torch.float64)
        state, full, forecasts = predictor.init(), set(steps), [truth[step : step + 1] for step in range(self.total)]
        for step in range(self.total):
            if step in full:
                state = predictor.update(state, truth[step : step + 1], step)
            else:
                forecasts[step] = predictor.predict(state, step)
        errors = (torch.cat(forecasts) - truth) * self.weights[:, None]
        gaps = torch.stack([errors[before:after].sum(0) for before, after in pairwise((*steps, self.total))])
        products = gaps @ self.gram @ gaps.T
        return max(0.0, float(self.gap_correlation * products.sum() + (1 - self.gap_correlation) * products.trace()))

    def improved(self, steps: tuple[int, ...], predictor: AbstractPredictor) -> tuple[int, ...]:
        """With full steps, one or several in a row, moved together as long as that lowers the cost."""
        best, moved = self.cost(steps, predictor), True
        while moved:
            moved = False
            for first, last in combinations(range(1, len(steps) + 1), 2):
                for distance in SINGLE_MOVES if last == first + 1 else ROW_MOVES:
                    row = (step + distance for step in steps[first:last])
                    changed = (*steps[:first], *row, *steps[last:])
                    if any(before >= after for before, after in pairwise((*changed, self.total))):
                        continue
                    if (cost := self.cost(changed, predictor)) < best * (1 - 1e-9):
                        best, steps, moved = cost, changed, True
        return steps
