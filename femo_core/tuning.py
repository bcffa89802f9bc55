"""The best full steps, and what to forecast the others by, for any number of network runs: from one full run."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .calibration import Calibration, calibrate, expected_error, lasting_step_lengths
from .errors import check_integer, check_number
from .gap_costs import GapCosts, gap_costs
from .noise_levels import check_gram, check_sigmas, resampling_weights
from .predictor import AbstractPredictor
from .predictors.femo import FeMo
from .predictors.scaled_taylor import ScaledTaylor
from .predictors.taylorseer import TaylorSeer
from .presets import CALIBRATED, RAMP
from .schedule import AbstractSchedule, ExplicitSchedule, RampSchedule, Schedule

# Chosen over the regimes of the two older small models, on tuning seeds (benchmarks/results/regimes.md).
SPREAD = 4.0  # of `lasting_step_lengths`
SLOPE, PULL = 0.6, 0.3  # of `gap_costs`
OTHER_SPREADS = (2.0, 8.0)  # tried out as well
SMOOTH = (TaylorSeer(2), FeMo(1, beta=-0.3))  # where gaps are short, what follows a curve may do better than a line
MOST_TRIES = 16  # calls of try_out
FIRST_TRIES = 10  # of them, of unlike candidates; the rest are small moves from the best

TryOut = Callable[[AbstractSchedule, AbstractPredictor], float]


def tuning_runs(budget: int) -> int:
    """The most network runs that `tune` asks of its try_out, for each batch of pictures that that samples.

    Where `tune` goes beyond the budget, so does this: without try_out it says at once to how many full steps.
    """
    return MOST_TRIES * budget


def tune(gram: Tensor, sigmas: Sequence[float], signals: Sequence[float], budget: int,
         try_out: TryOut | None = None) -> Calibration:
    """The schedule of `budget` full steps, and the predictor, whose result is expected to come nearest the full run's.

    gram: (S, S), as of TrajectoryGram.matrix or `resample_gram`. sigmas: the run's S + 1 noise levels, falling.
    signals: the picture's factor in x at each, as of `lasting_step_lengths`.

    Gaps cost ‖Σ weight · (forecast − truth)‖², where each may have the slope that suits it (ScaledTaylor); the full
    steps whose gaps cost least together are found by dynamic programming. TaylorSeer O = 2 and a leaning FeMo are
    preferred on them where the same reckoning expects less of an error. Where even that is expected to do worse than as
    many plain steps, there are more full steps than asked for: the fewest that do no worse.

    try_out (schedule, predictor): the error in closed loop, on pictures of the caller's. It is asked at most MOST_TRIES
    times, each for a run with `budget` full steps (`tuning_runs`): of candidates that the reckoning finds best under
    several assumptions, of what `calibrate` chooses, of the papers' schedule and of RampSchedule, then of small moves
    from the best of these. What it raises is passed on.

    It is *not* adaptive: what it returns is meant for all prompts and seeds.

    Raises ValueError for levels that do not fall, for signals and matrices that do not fit them or are not finite, and
    for a budget that is not 1 … S.
    """
    problem = _Problem.checked(gram, sigmas, signals)
    check_integer("budget", budget, 1, problem.total)
    best = problem.better_than_plain(budget)
    if try_out is None or len(best.schedule.steps) == problem.total:
        return best
    return _tried_out(problem, best, try_out)


def tune_to(gram: Tensor, sigmas: Sequence[float], signals: Sequence[float], error: float, least: int = 1,
            most: int = 0) -> Calibration:
    """As `tune`, with the fewest full steps, `least` … `most` (0: all), that are expected to keep to the error.

    Where `most` do not, those. Raises ValueError as `tune` does, and for an error that is not above 0.
    """
    problem = _Problem.checked(gram, sigmas, signals)
    most = most or problem.total
    check_integer("least", least, 1, problem.total)
    check_integer("most", most, least, problem.total)
    check_number("error", error, "above 0", lambda value: value > 0)
    budgets = range(least, most)
    fewest = bisect_left(budgets, -error, key=lambda budget: -problem.better_than_plain(budget).expected_error)
    return problem.better_than_plain(least + fewest)


@dataclass(frozen=True)
class _Problem:
    gram: Tensor
    sigmas: tuple[float, ...]
    signals: tuple[float, ...]
    weights: list[float]
    costs: GapCosts

    @classmethod
    def checked(cls, gram: Tensor, sigmas: Sequence[float], signals: Sequence[float]) -> _Problem:
        levels, factors = check_sigmas("sigmas", sigmas), tuple(float(signal) for signal in signals)
        matrix = check_gram(gram, len(levels) - 1)
        if not all(map(math.isfinite, factors)):
            raise ValueError(f"signals must be finite; got {factors}")
        weights = lasting_step_lengths(levels, factors, SPREAD)
        return cls(matrix, levels, factors, weights, gap_costs(matrix, weights, SLOPE, PULL))

    @property
    def total(self) -> int:
        return len(self.sigmas) - 1

    def better_than_plain(self, budget: int) -> Calibration:
        """The best, with more full steps than that where it takes them to do no worse than as many plain ones."""
        best = self.reckoned(budget)
        while len(best.schedule.steps) < self.total and best.expected_error > self.plain_error(
                len(best.schedule.steps)):
            best = self.reckoned(len(best.schedule.steps) + 1)
        return best

    def reckoned(self, budget: int) -> Calibration:
        """The best by expected error alone."""
        steps = self.costs.best_steps(budget)
        return min((self.fitted(steps), *(self.with_predictor(steps, predictor) for predictor in SMOOTH)),
                   key=lambda one: one.expected_error)

    def fitted(self, steps: tuple[int, ...]) -> Calibration:
        """These full steps, each gap's slope as suits it."""
        cost, factors = self.costs.of(steps)
        predictor = ScaledTaylor(factors=tuple((step, round(factor, 4)) for step, factor in zip(
            steps, factors, strict=True)))
        return Calibration(ExplicitSchedule(steps, self.total), predictor, math.sqrt(cost))

    def with_predictor(self, steps: tuple[int, ...], predictor: AbstractPredictor) -> Calibration:
        error = expected_error(self.gram, self.weights, steps, predictor, gap_correlation=0.0)
        return Calibration(ExplicitSchedule(steps, self.total), predictor, error)

    def plain_error(self, steps: int) -> float:
        """Expected of so many plain steps, at levels spaced as the run's are: each holds what it starts with."""
        if self.total < 2:
            return math.inf
        coarse, signals = self._spaced(steps)
        known = {**dict(zip(coarse, signals, strict=True)), **dict(zip(self.sigmas, self.signals, strict=True))}
        held = resampling_weights(self.sigmas, coarse)
        errors, fine = torch.zeros_like(held), 0
        for step, (start, end) in enumerate(pairwise(coarse)):
            while fine < self.total and self.sigmas[fine] > end:  # a part of the run's step lies within this one
                low = max(end, self.sigmas[fine + 1])
                length = lasting_step_lengths((min(start, self.sigmas[fine]), low), (0.0, known[low]), SPREAD)[0]
                errors[step] += length * held[step]
                errors[step, fine] -= length
                if self.sigmas[fine + 1] < end:
                    break
                fine += 1
        return math.sqrt(max(0.0, float((errors @ self.gram @ errors.T).trace())))

    def _spaced(self, steps: int) -> tuple[list[float], list[float]]:
        """Levels, and signals at them, of so many steps over the run: straight lines between its own."""
        found: list[list[float]] = []
        for values in (self.sigmas, self.signals):
            places = [self.total * step / steps for step in range(steps + 1)]
            lows = [min(math.floor(place), self.total - 1) for place in places]
            found.append([values[low] + (place - low) * (values[low + 1] - values[low])
                          for place, low in zip(places, lows, strict=True)])
        return found[0], found[1]

    def candidates(self, budget: int) -> Iterator[Calibration]:
        """Unlike each other, what the reckoning under other assumptions and no reckoning at all would choose."""
        for spread in OTHER_SPREADS:
            weights = lasting_step_lengths(self.sigmas, self.signals, spread)
            yield self.fitted(gap_costs(self.gram, weights, SLOPE, PULL).best_steps(budget))
        steps = gap_costs(self.gram, self.weights).best_steps(budget)
        yield self.with_predictor(steps, TaylorSeer(1))
        best = self.costs.best_steps(budget)
        yield from (self.with_predictor(best, predictor) for predictor in SMOOTH)
        lengths = lasting_step_lengths(self.sigmas, self.signals)
        yield calibrate(self.gram, lengths, budget, (CALIBRATED.predictor,))
        if budget > 1:
            yield self.with_predictor(RampSchedule(budget, self.sigmas).full_steps(self.total), RAMP)
        papers = (Schedule(interval, 3, 1).full_steps(self.total) for interval in range(2, self.total))
        yield from (self.fitted(steps) for steps in papers if len(steps) == budget)

    def moves(self, steps: tuple[int, ...]) -> list[Calibration]:
        """Each full step but the first a step earlier or later, what promises most first."""
        found: list[Calibration] = []
        for place in range(1, len(steps)):
            for distance in (-1, 1):
                moved = (*steps[:place], steps[place] + distance, *steps[place + 1 :])
                if all(before < after for before, after in pairwise((*moved, self.total))):
                    found.append(self.fitted(moved))
        return sorted(found, key=lambda one: one.expected_error)


def _tried_out(problem: _Problem, reckoned: Calibration, try_out: TryOut) -> Calibration:
    errors: dict[tuple[tuple[int, ...], AbstractPredictor], float] = {}

    def error_of(one: Calibration) -> float:
        key = one.schedule.steps, one.predictor
        if key not in errors:
            if len(errors) >= MOST_TRIES:
                return math.inf
            found = float(try_out(one.schedule, one.predictor))
            errors[key] = math.inf if math.isnan(found) else found
        return errors[key]

    best = reckoned
    error_of(best)
    for one in problem.candidates(len(reckoned.schedule.steps)):
        if len(errors) >= FIRST_TRIES:
            break
        if error_of(one) < error_of(best):
            best = one
    moved = True
    while moved and len(errors) < MOST_TRIES:
        moved = False
        for one in problem.moves(best.schedule.steps):
            if error_of(one) < error_of(best):
                best, moved = one, True
                break
    return best
