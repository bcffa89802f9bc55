"""What calibrated schedules are worth: `make bench-calibration` writes results/calibration.md.

A schedule is calibrated on one batch of pictures and tried on other seeds and prompts: RMSE of pixels to the full run,
mean and standard error of 9 seeds, 144 pictures, beside the best order of TaylorSeer on the papers' schedule with as
many full steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from benchmarks.engines.hosted import Hosted, hosts
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.rivals.forecasters import Spectrum, spectrum_steps
from benchmarks.sampling.forecasting import papers_schedules, sample
from benchmarks.sampling.jobs import SEEDS, STEPS, TUNING_SEEDS, random_job
from benchmarks.sampling.metrics import mean_and_error, over_seeds, rmse
from benchmarks.sampling.recording import Recording, record
from benchmarks.sampling.solvers import Solver, euler
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux
from femo_core import (
    Calibration,
    ExplicitSchedule,
    FeMo,
    Schedule,
    TaylorSeer,
    calibrate,
    expected_error,
)
from femo_core.calibration import GAP_CORRELATION
from femo_core.predictor import AbstractPredictor
from femo_core.presets import MEASURED
from femo_core.schedule import AbstractSchedule

SAMPLES = 16  # a seed
ALL_SEEDS = (*SEEDS, 3, 4, 5, 6, 7, 8)
BUDGETS = (14, 10, 8, 7)  # full steps of 50
SERIES = tuple(TaylorSeer(order) for order in range(4))
MOMENTUM = tuple(FeMo(1, beta=beta) for beta in (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2))

# What a calibration goes by, for the ablation: is it how much of an error lasts, and gap_correlation.
COSTS = {
    "step lengths, gaps apart": (False, 0.0), "lasting lengths, gaps apart": (True, 0.0),
    "step lengths, gaps together": (False, GAP_CORRELATION), "both": (True, GAP_CORRELATION),
}


class Trial:
    """Pictures of seeds and prompts that nothing was calibrated on, and how near a forecast comes to them."""

    def __init__(self, subject: Subject, steps: int = STEPS, guidance: float = 2.5, job: Job | None = None,
                 solver: Solver = euler):
        self.subject, self.steps, self.solver = subject, steps, solver
        self.job = dataclasses.replace(job or random_job(SEEDS, SAMPLES), guidance=guidance)
        self.full = record(subject, self.job, steps, solver).pixels
        self._known: dict[tuple[AbstractPredictor, tuple[int, ...]], Tensor] = {}

    def squares(self, predictor: AbstractPredictor, schedule: AbstractSchedule) -> Tensor:
        """Of each picture (B,): the mean square of its pixels' distance to the full run's."""
        key = predictor, schedule.full_steps(self.steps)
        if key not in self._known:
            result, _ = sample(self.subject, self.job, self.steps, predictor, schedule, solver=self.solver)
            self._known[key] = (self.subject.pixels(result) - self.full).square().mean((1, 2, 3))
        return self._known[key]

    def error(self, predictor: AbstractPredictor, schedule: AbstractSchedule) -> tuple[float, float]:
        """RMSE to the full run: mean over the seeds, and its standard error."""
        seeds = self.squares(predictor, schedule).split(self.job.samples)
        return mean_and_error([squares.mean().sqrt().item() for squares in seeds])

    def median(self, predictor: AbstractPredictor, schedule: AbstractSchedule) -> float:
        """The median picture's RMSE: what errors are where no picture turns into another."""
        return self.squares(predictor, schedule).sqrt().median().item()

    def cell(self, predictor: AbstractPredictor, schedule: AbstractSchedule, best: float) -> str:
        error, _ = self.error(predictor, schedule)
        return f"{error:.4f} ({error / best:.2f})"

    def best_of_papers(self, schedule: AbstractSchedule) -> tuple[float, int, float]:
        """Of TaylorSeer: the error, the order that gives it, and its standard error."""
        errors = [(*self.error(predictor, schedule), predictor.max_order) for predictor in SERIES]
        error, spread, order = min(errors)
        return error, order, spread

    def correlation(self, recording: Recording, step_weights: list[float], gap_correlation: float) -> float:
        """Of log errors, expected and real, of all that was tried with TaylorSeer O = 1."""
        pairs = [(expected_error(recording.gram, step_weights, steps, predictor, gap_correlation),
                  self.error(predictor, ExplicitSchedule(steps, self.steps))[0])
                 for predictor, steps in self._known if predictor == TaylorSeer(1)]
        return float(np.corrcoef(np.log(pairs).T)[0, 1])


def papers_schedule(subject: Subject, budget: int, steps: int = STEPS) -> Schedule:
    """With so many full steps, the last of them an added cool-down step where no interval gives just so many."""
    if found := next(papers_schedules(subject.warmup, steps, budget), None):
        return found
    raise ValueError(f"no interval gives {budget} full steps of {steps}")


def spectrum_schedule(budget: int) -> ExplicitSchedule:
    """Spectrum's own, its window growing just fast enough; with one step more where none gives just so many."""
    schedules = [spectrum_steps(STEPS, growth / 20) for growth in range(300)]
    return ExplicitSchedule(min((steps for steps in schedules if len(steps) >= budget), key=len))


class EasyCache:
    """ComfyUI's, where one is found, on a trial's pictures and free to skip any step."""

    def __init__(self, trial: Trial, host: Path):
        self.hosted, self.job = Hosted(trial.subject, host), trial.job
        self.full, _, _ = self.hosted.run(self.hosted.model, self.job, STEPS, "euler")
        self._known: dict[float, tuple[Tensor, int]] = {}

    def cell(self, budget: int, best: float) -> str:
        """With the highest threshold found that gives at least so many network runs."""
        low, high = 0.02, 20.0
        for _ in range(8):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self._run(middle)[1] >= budget else (low, middle)
        pixels, runs = self._run(low)
        error, _ = over_seeds(rmse, pixels, self.full, SAMPLES)
        return f"{error:.4f} ({error / best:.2f})" + (f", {runs} runs" if runs > budget else "")

    def _run(self, threshold: float) -> tuple[Tensor, int]:
        if threshold not in self._known:
            model = self.hosted.rival("EasyCache", threshold, whole_run=True)
            pixels, runs, _ = self.hosted.run(model, self.job, STEPS, "euler")
            self._known[threshold] = pixels, runs
        return self._known[threshold]


HEADS = (
    ("model", "full steps", "TaylorSeer, papers' schedule", "our default, interval", "Spectrum", "EasyCache",
     "TaylorSeer O=1, calibrated", "from one picture", "best of all, calibrated", "which", "steps"),
    ("model", "full steps", "TaylorSeer, papers' schedule", "TaylorSeer O=1, calibrated", "from one picture",
     "best of all, calibrated"),
    ("model", "full steps", "papers' schedule", "with a cool-down step", *COSTS),
    ("model", *COSTS),
)
TEXT = f"""{__doc__.strip()}

In brackets the ratio to TaylorSeer on the papers' schedule. Spectrum runs by its own schedule, its window growing just
fast enough; EasyCache is ComfyUI's, free to skip any step, with the highest threshold that gives enough network runs.
"Best of all" is of TaylorSeer O = 0 … 3 and FeMo, β −0.4 … 0.2, by the expected error.

%s

## The median picture

RMSE is mostly of the few pictures that turn into others; the median picture does not.

%s

## Which idea gives what

TaylorSeer O=1 on schedules calibrated with other costs. An error is weighed by the step's length in σ, or by how much
of it lasts; errors of different gaps are squared apart, or, for the most part, added up first.

%s

How well the expected error tells the real one, of all these schedules: correlation of their logarithms.

%s
"""


def main() -> None:
    tables, host = [list[list[str]]() for _ in HEADS], hosts.this_host()
    if host is None:
        print(hosts.MISSING)
    for subject in (TinyFlux(), TinyDiT()):
        trial = Trial(subject, job=random_job(ALL_SEEDS, SAMPLES))
        easycache = EasyCache(trial, host) if host else None
        job = random_job(TUNING_SEEDS, SAMPLES, tuning=True)
        recording, of_one = record(subject, job), record(subject, Job(job.prompts[:1], TUNING_SEEDS[0]))
        for budget in tqdm(BUDGETS, subject.name):
            plain, best = (calibrate(recording.gram, recording.lasting, budget, predictors)
                           for predictors in (SERIES[1:2], (*SERIES, *MOMENTUM)))
            one = calibrate(of_one.gram, of_one.lasting, budget, SERIES[1:2])
            tables[0].append(_compared(trial, easycache, budget, (plain, one, best)))
            tables[1].append(_medians(trial, budget, (plain, one, best)))
            tables[2].append(_ablated(trial, recording, budget))
        tables[3].append([subject.name, *(f"{trial.correlation(recording, weights, together):.2f}"
                                          for weights, together in _costs(recording))])
    text = TEXT % tuple(markdown(head, body) for head, body in zip(HEADS, tables, strict=True))
    (RESULTS / "calibration.md").write_text(text, encoding="utf-8")
    print(text)


def _compared(trial: Trial, easycache: EasyCache | None, budget: int, found: Sequence[Calibration]) -> list[str]:
    subject, papers = trial.subject, papers_schedule(trial.subject, budget)
    best, order, spread = trial.best_of_papers(papers)
    default, own = Schedule(papers.interval, papers.warmup_steps, 1), spectrum_schedule(budget)
    more = f", {len(own.steps)} runs" if len(own.steps) > budget else ""
    return [subject.name, str(budget), f"{best:.4f} ± {spread:.4f} (O={order})",
            trial.cell(MEASURED[subject.preset].predictor, default, best), trial.cell(Spectrum(), own, best) + more,
            easycache.cell(budget, best) if easycache else "–",
            *(trial.cell(one.predictor, one.schedule, best) for one in found),
            _name(found[-1].predictor), " ".join(map(str, found[0].schedule.steps))]


def _medians(trial: Trial, budget: int, found: Sequence[Calibration]) -> list[str]:
    papers = papers_schedule(trial.subject, budget)
    _, order, _ = trial.best_of_papers(papers)
    ways = [(SERIES[order], papers), *((one.predictor, one.schedule) for one in found)]
    medians = [trial.median(*way) for way in ways]
    return [trial.subject.name, str(budget), *(f"{median:.4f} ({median / medians[0]:.2f})" for median in medians)]


def _ablated(trial: Trial, recording: Recording, budget: int) -> list[str]:
    papers = papers_schedule(trial.subject, budget)
    best, _, _ = trial.best_of_papers(papers)
    schedules: list[AbstractSchedule] = [papers, Schedule(papers.interval, papers.warmup_steps, 1)]
    schedules += [calibrate(recording.gram, weights, budget, SERIES[1:2], together).schedule
                  for weights, together in _costs(recording)]
    return [trial.subject.name, str(budget), *(trial.cell(SERIES[1], schedule, best) for schedule in schedules)]


def _costs(recording: Recording) -> list[tuple[list[float], float]]:
    """Step weights and gap_correlation of COSTS."""
    return [(recording.lasting if lasting else recording.lengths, together) for lasting, together in COSTS.values()]


def _name(predictor: AbstractPredictor) -> str:
    beta = f", β={predictor.beta:g}" if isinstance(predictor, FeMo) else ""
    return f"{type(predictor).__name__} O={predictor.max_order}{beta}"


if __name__ == "__main__":
    main()
