"""Every row in every regime: `make bench-regimes` writes results/regimes.csv, and from it regimes.md and regimes.png.

What is measured is how far a run with so many network runs ends from the full run of as many steps: RMSE of pixels, 16
pictures of two seeds, and its median picture's; and how far from the limit, Euler's method in 200 steps. What is
learned (Gram matrix, what `tune` tries out) is of six other pictures. It goes on where it was interrupted. --full
measures every budget, --model and --steps a part.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor
from tqdm import tqdm

from benchmarks.pages.results import RESULTS
from benchmarks.rivals import regime_rivals as rivals
from benchmarks.rivals.regime_rivals import Choice
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.jobs import random_job
from benchmarks.sampling.recording import Recording, record
from benchmarks.sampling.regime_subjects import MODELS, REGIMES, Regime
from benchmarks.sampling.solvers import Solver, dpmpp_2m, euler, of_diffusers
from benchmarks.sampling.subjects import Job, Level, Subject
from femo_core import (
    Calibration,
    RampSchedule,
    Schedule,
    TaylorSeer,
    calibrate,
    resample_gram,
    tune,
)
from femo_core.noise_levels import reaches
from femo_core.predictor import AbstractPredictor
from femo_core.presets import CALIBRATED, MEASURED, RAMP
from femo_core.schedule import ExplicitSchedule

# Network runs of so many steps; the others with --full. A run of the DiT, which is guided, costs twice as much.
BUDGETS = {50: (25, 14, 8), 28: (14, 7), 20: (12, 7), 12: (8, 5), 8: (6, 4)}
BUDGETS_DIT = {50: (14,), 20: (12, 7), 8: (6, 4)}
MORE_BUDGETS = {50: (38, 17, 11), 28: (20, 10, 5), 20: (15, 9, 5, 4), 12: (9, 6, 4), 8: (7, 5, 3)}
SEEDS, SAMPLES = (20, 21), 8  # of the pictures that are compared
LEARNED_SEED, LEARNED = 25, 6  # of those that are learned from
LIMIT_STEPS = 200
ELSEWHERE = {"tuned, learned at 20 steps": 20, "tuned, learned at 50 steps": 50}  # at the regime below
HOME_SHIFT = 1.0
MULTISTEP = {"uni_pc": UniPCMultistepScheduler, "deis": DEISMultistepScheduler}
COLUMNS: tuple[str, ...] = (
    "model", "shift", "steps", "budget", "row", "runs", "plain", "rmse", "median", "psnr", "to_limit", "full_steps",
    "predictor")


@dataclasses.dataclass(frozen=True)
class Measured:
    rmse: float
    median: float
    psnr: float
    to_limit: float


class Cell:
    """A regime at a number of steps: its full run, what was learned, and what is measured of any other run."""

    def __init__(self, subject: Subject, regime: Regime, steps: int):
        self.subject, self.regime, self.steps = subject, regime, steps
        self.levels = regime.levels(subject, steps)
        self.sigmas = [*(level.sigma for level in self.levels), 0.0]
        self.signals = [subject.signal(sigma) for sigma in self.sigmas]
        self.job = compared()
        self.learned_job = random_job((LEARNED_SEED,), LEARNED)
        self._forecast: dict[Choice, Tensor] = {}
        self._solved: dict[int, Tensor] = {}

    @cached_property
    def full(self) -> Tensor:
        return plain(self.subject, self.job, self.levels)

    @cached_property
    def learned(self) -> Recording:
        return record(self.subject, self.learned_job, self.steps, levels=self.levels)

    def measured(self, pixels: Tensor, limit: Tensor) -> Measured:
        squares = (pixels - self.full).square().mean((1, 2, 3))
        return Measured(
            squares.mean().sqrt().item(), squares.sqrt().median().item(),
            (10 * (4 / squares.clamp_min(1e-12)).log10()).mean().item(),
            (pixels - limit).square().mean().sqrt().item())

    def solved(self, budget: int, solver: Solver) -> Tensor:
        return plain(self.subject, self.job, self.regime.levels(self.subject, budget), solver)

    def plain(self, budget: int) -> Tensor:
        if budget not in self._solved:
            self._solved[budget] = self.solved(budget, euler)
        return self._solved[budget]

    def forecast(self, choice: Choice) -> Tensor:
        """Rows often choose alike."""
        if choice not in self._forecast:
            self._forecast[choice] = self._sample(choice, self.job)
        return self._forecast[choice]

    def _sample(self, choice: Choice, job: Job) -> Tensor:
        result, _ = sample(
            self.subject, job, self.steps, choice.predictor, ExplicitSchedule(choice.steps, self.steps),
            levels=self.levels, coordinate=choice.coordinate, site=choice.site)
        return self.subject.pixels(result)

    def easy_cache(self, steps: tuple[int, ...]) -> Tensor:
        """EasyCache's own forecast: what the network added to its input at the last full step is added again."""
        kept: list[Tensor] = []

        def watched(derivative: Callable[[int, Tensor], Tensor], x: Tensor, sigmas: Any) -> Tensor:
            def reused(step: int, x: Tensor) -> Tensor:
                scaled = x / math.hypot(1.0, sigmas[step]) if self.signals[0] == 1.0 else x  # as the network gets it
                if step in steps:
                    v = derivative(step, x)
                    kept[:] = [v - scaled]
                    return v
                return scaled + kept[0]
            return euler(reused, x, sigmas)

        result, _ = sample(
            self.subject, self.job, self.steps, TaylorSeer(0), Schedule(1), solver=watched, levels=self.levels)
        return self.subject.pixels(result)

    def gram_at(self, sigmas: list[float]) -> Tensor:
        return resample_gram(self.learned.gram, self.sigmas, sigmas)

    def try_out(self, schedule: Any, predictor: AbstractPredictor) -> float:
        """In closed loop on the pictures that were learned from."""
        choice = Choice(schedule.full_steps(self.steps), predictor)
        return (self._sample(choice, self.learned_job) - self.learned.pixels).square().mean().sqrt().item()

    def ramp(self, budget: int) -> Choice:
        return Choice(RampSchedule(budget, tuple(self.sigmas)).full_steps(self.steps), RAMP)

    def calibrated(self, budget: int) -> Choice:
        found = calibrate(self.learned.gram, self.learned.lasting, budget, [CALIBRATED.predictor])
        return _choice(found, self.steps)

    def tuned(self, budget: int, gram: Tensor | None = None, tries: bool = False) -> Choice:
        gram = self.learned.gram if gram is None else gram
        return _choice(tune(gram, self.sigmas, self.signals, budget, self.try_out if tries else None), self.steps)


def plain(subject: Subject, job: Job, levels: list[Level], solver: Solver = euler) -> Tensor:
    result, _ = sample(subject, job, len(levels), TaylorSeer(0), Schedule(1), solver=solver, levels=levels)
    return subject.pixels(result)


def _choice(found: Calibration, steps: int) -> Choice:
    return Choice(found.schedule.full_steps(steps), found.predictor)


Made = tuple[Tensor, Choice | None]


def rows(cell: Cell, budget: int) -> Iterator[tuple[str, Callable[[], Made]]]:
    """By name: what makes its pictures. Of the papers' rows each is one of its own; the page takes the best."""
    def forecast(choose: Callable[[], Choice]) -> Callable[[], Made]:
        def made() -> Made:
            choice = choose()
            return cell.forecast(choice), choice
        return made

    def easy_cache() -> Made:
        steps = rivals.easy_cache(cell.learned, budget)
        return cell.easy_cache(steps), Choice(steps, TaylorSeer(0))

    yield "plain, euler", lambda: (cell.plain(budget), None)
    yield "plain, dpmpp_2m", lambda: (cell.solved(budget, dpmpp_2m(cell.subject.signal)), None)
    for name, scheduler in MULTISTEP.items():
        yield f"plain, {name}", lambda scheduler=scheduler: (
            cell.solved(budget, of_diffusers(scheduler, cell.subject.signal)), None)
    dit = cell.regime.model == "tiny DiT"
    for name, choice in rivals.papers_choices(cell.subject.warmup, cell.steps, budget, dit).items():
        yield f"papers, {name}", forecast(lambda choice=choice: choice)
    if found := rivals.spectrum(cell.steps, budget):
        yield "Spectrum", forecast(lambda: found)
    yield "EasyCache", easy_cache
    yield "SeaCache", forecast(lambda: Choice(rivals.sea_cache(cell.learned, budget), TaylorSeer(0)))
    for order in (1, 2):
        yield f"DPCache, O={order}", forecast(lambda order=order: rivals.dp_cache(cell.learned, budget, order))
    yield "MeanCache", forecast(lambda: rivals.mean_cache(cell.learned, budget))
    yield "Ramp", forecast(lambda: cell.ramp(budget))
    yield "FeMo Cache, interval 0", forecast(
        lambda: dataclasses.replace(cell.ramp(budget), predictor=MEASURED["FLUX"].predictor))
    yield "calibrated", forecast(lambda: cell.calibrated(budget))
    yield "tuned", forecast(lambda: cell.tuned(budget))
    yield "tuned, tried out", forecast(lambda: cell.tuned(budget, tries=True))
    for name, steps in ELSEWHERE.items():
        home = home_cell(cell.subject, cell.regime.model, steps)
        if reaches(home.sigmas, cell.sigmas):
            yield name, forecast(lambda home=home: cell.tuned(budget, home.gram_at(cell.sigmas)))


def compared() -> Job:
    return random_job(SEEDS, SAMPLES)


_homes: dict[tuple[str, int], Cell] = {}


def home_cell(subject: Subject, model: str, steps: int) -> Cell:
    if (model, steps) not in _homes:
        _homes[model, steps] = Cell(subject, Regime(model, HOME_SHIFT), steps)
    return _homes[model, steps]


@cache
def subject_of(model: str) -> Subject:
    return MODELS[model]()


def limit_of(regime: Regime) -> Tensor:
    """The pictures of very many steps. In a process of its own, on one core."""
    torch.set_num_threads(1)
    subject = subject_of(regime.model)
    return plain(subject, compared(), regime.levels(subject, LIMIT_STEPS))


def measure(regime: Regime, steps: int, limit: Tensor, wanted: Mapping[int, Collection[str]]) -> list[dict[str, Any]]:
    """The wanted rows of a regime at a number of steps, by budget. In a process of its own, on one core.

    plain: the RMSE of as many plain steps as the row has network runs; `tune` may take more than the budget.
    """
    torch.set_num_threads(1)
    cell, found = Cell(subject_of(regime.model), regime, steps), list[dict[str, Any]]()
    with torch.inference_mode():
        for budget, names in wanted.items():
            for name, make in rows(cell, budget):
                if name not in names:
                    continue
                pixels, choice = make()
                runs = len(choice.steps) if choice else budget
                found.append({
                    "model": regime.model, "shift": regime.shift, "steps": steps, "budget": budget, "row": name,
                    "runs": runs, "plain": f"{cell.measured(cell.plain(runs), limit).rmse:.6g}",
                    **{key: f"{value:.6g}"
                       for key, value in dataclasses.asdict(cell.measured(pixels, limit)).items()},
                    "full_steps": " ".join(map(str, choice.steps)) if choice else "",
                    "predictor": repr(choice.predictor) if choice else ""})
    return found


def budgets(model: str, steps: int, full: bool = False) -> tuple[int, ...]:
    """Network runs that are measured, of so many steps."""
    if full:
        return BUDGETS[steps] + MORE_BUDGETS[steps]
    return BUDGETS_DIT.get(steps, ()) if model == "tiny DiT" else BUDGETS[steps]


def missing(regime: Regime, steps: int, budget: int, known: Collection[str]) -> set[str]:
    """Names of the cell's rows, but those known."""
    return {name for name, _ in rows(Cell(subject_of(regime.model), regime, steps), budget)} - set(known)


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--full", action="store_true", help="every budget")
    arguments.add_argument("--model", choices=list(MODELS), action="append")
    arguments.add_argument("--steps", type=int, choices=list(BUDGETS), action="append")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--out", type=Path, default=RESULTS / "regimes.csv")
    options = arguments.parse_args()
    known: dict[tuple[Regime, int, int], set[str]] = {}
    for row in read(options.out):
        regime = Regime(row["model"], float(row["shift"]))
        known.setdefault((regime, int(row["steps"]), int(row["budget"])), set()).add(row["row"])
    wanted: list[tuple[Regime, int, dict[int, set[str]]]] = []
    for regime in REGIMES:
        for steps in BUDGETS:
            if regime.model in (options.model or MODELS) and steps in (options.steps or BUDGETS):
                names = {budget: missing(regime, steps, budget, known.get((regime, steps, budget), ()))
                         for budget in budgets(regime.model, steps, options.full)}
                if any(names.values()):
                    wanted.append((regime, steps, names))
    regimes = list(dict.fromkeys(regime for regime, *_ in wanted))
    new = not options.out.is_file()
    with ProcessPoolExecutor(options.jobs) as pool, options.out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        found = tqdm(pool.map(limit_of, regimes), "limits", len(regimes), unit="regime")
        limits = dict(zip(regimes, found, strict=True))
        running = [pool.submit(measure, regime, steps, limits[regime], names) for regime, steps, names in wanted]
        for done in tqdm(as_completed(running), "rows", len(running), unit="run", mininterval=5):
            writer.writerows(done.result())
            file.flush()


if __name__ == "__main__":
    main()
