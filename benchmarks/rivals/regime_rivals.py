"""Others' rules on our small models: which steps they run, and what they put in place of the rest.

Each is written from what its paper or repository says it does, at its simplest: a rule that goes by a threshold decides
on the path of a full run, its x brought to unit variance, with the threshold that gives as many network runs as all
others have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.rivals.forecasters import Spectrum, spectrum_steps
from benchmarks.sampling.forecasting import papers_schedules
from benchmarks.sampling.recording import Recording
from femo_core import FeMo, TaylorSeer
from femo_core.gap_costs import GapCosts
from femo_core.predictor import AbstractPredictor

PAPERS: dict[str, AbstractPredictor] = {
    **{f"TaylorSeer O={order}": TaylorSeer(order) for order in range(5)}, "FeMo β=0.325": FeMo(1, beta=0.325),
    "Adapted-FeMo": FeMo(1, beta=0.325, gamma=0.0125, beta_min=0.2, beta_max=0.45)}
PAPERS_DIT: dict[str, AbstractPredictor] = {
    "FeMo β=-0.2": FeMo(1, beta=-0.2), "FeMo O=2, β=-0.02": FeMo(2, beta=-0.02)}  # for DiT, in addition
THRESHOLDS = 60  # halvings, at most


@dataclass(frozen=True)
class Choice:
    """A row's full steps and what forecasts the others. coordinate, site: as of `forecasting.sample`."""

    steps: tuple[int, ...]
    predictor: AbstractPredictor
    coordinate: str = "steps"
    site: str = "hidden"


def papers_choices(warmup: int, total: int, budget: int, dit: bool = False) -> dict[str, Choice]:
    """The papers' schedule with so many full steps, with no cool-down and one step, where there is one; by name."""
    predictors = PAPERS | PAPERS_DIT if dit else PAPERS
    return {f"{name}, cool-down {schedule.cooldown_steps}": Choice(schedule.full_steps(total), predictor)
            for schedule in papers_schedules(warmup, total, budget) for name, predictor in predictors.items()}


def spectrum(total: int, budget: int) -> Choice | None:
    """Spectrum (CVPR 2026): a warm-up of five steps, a growing window, Chebyshev polynomials blended with a line."""
    found = [steps for growth in range(400) if len(steps := spectrum_steps(total, growth / 20)) == budget]
    return Choice(found[0], Spectrum(total_steps=total)) if found else None


def easy_cache(path: Recording, budget: int) -> tuple[int, ...]:
    """ComfyUI's EasyCache: the output's change is reckoned from the input's by their ratio at the last full steps.

    A step is full once the changes added up since the last full one, relative to its output, reach the threshold.
    """
    moves, v = _mean_changes(path.x), path.v

    def steps(threshold: float) -> list[int]:
        full, rate, added = [0], None, 0.0
        for step in range(1, len(v)):
            moved = moves[step]
            if rate is not None:
                added += rate * moved / float(v[full[-1]].abs().mean())
                if added < threshold:
                    continue
            added = 0.0
            rate = float((v[step] - v[full[-1]]).abs().mean()) / moved
            full.append(step)
        return full
    return _with_budget(steps, budget)


def sea_cache(path: Recording, budget: int) -> tuple[int, ...]:
    """SeaCache (2026): TeaCache's rule, the relative change of inputs added up, on inputs that are filtered by how much
    of each frequency is picture at their noise level (a picture's power taken to fall as 1 / f²)."""
    filtered = _filtered(path)
    changes = [0.0, *(float((after - before).abs().mean() / before.abs().mean())
                      for before, after in pairwise(filtered))]

    def steps(threshold: float) -> list[int]:
        full, added = [0], 0.0
        for step in range(1, len(changes)):
            added += changes[step]
            if added >= threshold:
                full.append(step)
                added = 0.0
        return full
    return _with_budget(steps, budget)


def dp_cache(path: Recording, budget: int, order: int) -> Choice:
    """DPCache (CVPR 2026): dynamic programming over the errors of forecasts between three full steps, added up."""
    total = len(path.gram)
    costs = torch.full((total + 1, total, total + 1), torch.inf, dtype=torch.float64)
    for last in range(total):
        for before in (*range(last), total):
            if (before == total) != (last == 0):
                continue
            errors = [_line_error(path.gram, before, last, step, order) for step in range(last + 1, total)]
            sums = torch.tensor([0.0, *errors], dtype=torch.float64).cumsum(0)
            costs[before, last, last + 1 :] = sums
    return Choice(GapCosts(costs, costs).best_steps(budget), TaylorSeer(order))


def mean_cache(path: Recording, budget: int) -> Choice:
    """MeanCache (ICLR 2026): the path that is shortest in the squared errors of reused velocities over σ; the velocity
    of a gap is put right by its slope in σ."""
    total, gram = len(path.gram), path.gram
    lengths = torch.tensor([before - after for before, after in pairwise(path.sigmas)], dtype=torch.float64)
    costs = torch.full((total + 1, total, total + 1), torch.inf, dtype=torch.float64)
    for last in range(total):
        weights = torch.zeros(total, dtype=torch.float64)
        costs[:last, last, last + 1] = costs[total, last, last + 1] = 0.0
        for after in range(last + 2, total + 1):
            weights[after - 1] = -lengths[after - 1]
            weights[last] += lengths[after - 1]
            costs[:last, last, after] = costs[total, last, after] = float(weights @ gram @ weights)
    return Choice(GapCosts(costs, costs).best_steps(budget), TaylorSeer(1), coordinate="sigmas")


def _line_error(gram: Tensor, before: int, last: int, step: int, order: int) -> float:
    weights = torch.zeros(len(gram), dtype=torch.float64)
    weights[last], weights[step] = 1.0, -1.0
    if order and before < last:
        slope = (step - last) / (last - before)
        weights[last] += slope
        weights[before] -= slope
    return max(0.0, float(weights @ gram @ weights)) ** 0.5


def _mean_changes(features: Tensor) -> list[float]:
    """By step: mean absolute difference to the step before."""
    return [0.0, *(float((after - before).abs().mean()) for before, after in pairwise(features))]


def _filtered(path: Recording) -> Tensor:
    height, width = path.x.shape[-2:]
    frequencies = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()) * height * width
    power = 1 / frequencies.clamp_min(1.0)
    filtered: list[Tensor] = []
    for x, sigma, signal in zip(path.x, path.sigmas, path.signals, strict=False):
        gain = signal * power / (signal**2 * power + sigma**2)
        filtered.append(torch.fft.irfft2(torch.fft.rfft2(x) * gain, (height, width)))
    return torch.stack(filtered)


def _with_budget(steps: Callable[[float], list[int]], budget: int) -> tuple[int, ...]:
    """With the threshold that gives so many, or the next more (then its last are left out)."""
    low, high = 0.0, 1e3
    for _ in range(THRESHOLDS):
        middle = (low * high) ** 0.5 if low else high / 2
        if len(steps(middle)) >= budget:
            low = middle
        else:
            high = middle
    found = steps(low)
    return tuple(found[:budget])
