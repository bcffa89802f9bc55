"""Choosing full steps as the run goes, against calibrated schedules: `make bench-calibration` writes
results/error_control.md.

Error control (the nodes' `tolerance`): the forecast's error, measured at each full step, widens or narrows the next
gap. Verification (SpeCa): a step whose forecast is off is computed in full; here by an oracle that knows the error
itself, at no cost, which no probe can beat; the error as it is, or by how much of it lasts to the end. Each picture is
a run of its own, with full steps of its own, and one tolerance for all that gives so many on average. RMSE of pixels
to the full run, TaylorSeer O=1, gaps of 12 at most, mean and standard error of 24 pictures; the median picture in
brackets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from statistics import mean, median

from tqdm import tqdm

from benchmarks.calibration.calibration import BUDGETS, SAMPLES, Recording, papers_schedule, record
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.jobs import STEPS, TUNING_SEEDS, random_job, random_prompts
from benchmarks.sampling.metrics import mean_and_error, rmse
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux
from femo_core import ExplicitSchedule, Schedule, TaylorSeer, calibrate
from femo_core.schedule import AbstractSchedule

PREDICTOR = TaylorSeer(1)
PICTURES = 24
WARMUP = 2  # full steps, before there is a slope
WIDEST_GAP = 12
TOLERANCES = tuple(10 ** (power / 50) for power in range(-200, 1))  # 0.0001 … 1

Tried = tuple[list[float], list[int]]
"""RMSE and number of full steps of each picture."""


def forecast_error(recording: Recording, before: int, last: int, step: int, weigh: bool) -> float:
    """Of the line through full steps `before` and `last`, at `step`: relative, or by how much of it lasts."""
    slope = (step - last) / (last - before)
    parts = {step: 1.0, last: -1.0 - slope, before: slope}
    square = sum(a * b * float(recording.gram[i, j]) for i, a in parts.items() for j, b in parts.items())
    scale = recording.lasting[step] if weigh else float(recording.gram[step, step]) ** -0.5
    return math.sqrt(max(0.0, square)) * scale


def verified(recording: Recording, tolerance: float, weigh: bool = False) -> tuple[int, ...]:
    """Full where the forecast would be off by more than the tolerance, and where the gap is the widest."""
    steps = list(range(WARMUP))
    for step in range(WARMUP, STEPS):
        error = forecast_error(recording, *steps[-2:], step, weigh=weigh)
        if error > tolerance or step - steps[-1] >= WIDEST_GAP:
            steps.append(step)
    return tuple(steps)


def tolerance_for(budget: int, counts: Callable[[float], list[int]]) -> float:
    """The largest of TOLERANCES that gives at least `budget` full steps on average. counts: of each picture."""
    return TOLERANCES[bisect_right(TOLERANCES, -budget, key=lambda tolerance: -mean(counts(tolerance))) - 1]


class Pictures:
    """Of one model: their full runs, and how near to them other runs come."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.jobs = [Job((prompt,), seed) for seed, prompt in enumerate(random_prompts(0, PICTURES))]
        self.recordings = [record(subject, job) for job in tqdm(self.jobs, subject.name)]
        self.controlled = cache(self._controlled)

    def errors(self, schedules: list[AbstractSchedule], tolerance: float = 0.0) -> Tried:
        errors, counts = list[float](), list[int]()
        for job, recording, schedule in zip(self.jobs, self.recordings, schedules, strict=True):
            result, report = sample(self.subject, job, STEPS, PREDICTOR, schedule, tolerance=tolerance)
            errors.append(rmse(self.subject.pixels(result), recording.pixels))
            counts.append(len(report.full_steps))
        return errors, counts

    def _controlled(self, tolerance: float) -> Tried:
        return self.errors([Schedule(WIDEST_GAP, WARMUP)] * PICTURES, tolerance)

    def verified(self, budget: int, weigh: bool) -> Tried:
        def schedules(tolerance: float) -> list[AbstractSchedule]:
            return [ExplicitSchedule(verified(recording, tolerance, weigh)) for recording in self.recordings]

        def counts(tolerance: float) -> list[int]:
            return [len(schedule.full_steps(STEPS)) for schedule in schedules(tolerance)]

        return self.errors(schedules(tolerance_for(budget, counts)))


def cell(errors: list[float], counts: list[int], budget: int) -> str:
    average, spread = mean_and_error(errors)
    runs = f", {mean(counts):.1f} runs" if mean(counts) > budget + 0.05 else ""
    return f"{average:.4f} ± {spread:.4f} ({median(errors):.4f}){runs}"


PAPERS, COOLED, CALIBRATED, CONTROLLED = "papers' schedule", "with a cool-down step", "calibrated", "error control"
ORACLES = {"oracle verification": False, "oracle verification, of what lasts": True}
TEXT = f"""{__doc__.strip()}

%s

The mean of one over that of another:

%s

**Error control** needs no run beforehand, and gives each picture full steps of its own; and yet full steps calibrated
on other pictures are better at every number of them, on both models. Against an interval it depends: on the tiny Flux
it is far better than the papers' schedule, on the tiny DiT it is worse. An error is known only when its gap is over,
and the error of a feature is not what lasts of it in the picture, by which the oracle does better on the DiT. What
tolerance gives how many full steps differs from model to model. So it is off by default: for a model that can't be
calibrated, and then to be compared with an interval of as many full steps.

**Verification** is not built. The oracle knows every forecast's error and pays nothing for it, where SpeCa pays for a
probe at every step and goes by what that tells; and it is behind calibrated full steps, too.
"""


def cooled_schedule(subject: Subject, budget: int) -> Schedule:
    """The widest interval that gives so many full steps or more, one of them a cool-down step."""
    schedules = [Schedule(interval, subject.warmup, 1) for interval in range(2, STEPS)]
    return [schedule for schedule in schedules if len(schedule.full_steps(STEPS)) >= budget][-1]


def ways(pictures: Pictures, batch: Recording, budget: int) -> tuple[dict[str, Tried], float]:
    """What was tried, by name, and the tolerance of error control."""
    def counts(tolerance: float) -> list[int]:
        return pictures.controlled(tolerance)[1]

    schedules = {
        PAPERS: papers_schedule(pictures.subject, budget), COOLED: cooled_schedule(pictures.subject, budget),
        CALIBRATED: calibrate(batch.gram, batch.lasting, budget, [PREDICTOR]).schedule}
    found = {name: pictures.errors([schedule] * PICTURES) for name, schedule in schedules.items()}
    tolerance = tolerance_for(budget, counts)
    found[CONTROLLED] = pictures.controlled(tolerance)
    return found | {name: pictures.verified(budget, weigh) for name, weigh in ORACLES.items()}, tolerance


def ratio(tried: Tried, other: Tried) -> str:
    return f"{mean(tried[0]) / mean(other[0]):.2f}"


def main() -> None:
    body, ratios, oracle = [], [], [*ORACLES][-1]
    pairs = [(CONTROLLED, PAPERS), (CONTROLLED, COOLED), (CONTROLLED, CALIBRATED), (oracle, CALIBRATED)]
    for subject in (TinyFlux(), TinyDiT()):
        pictures = Pictures(subject)
        batch = record(subject, random_job(TUNING_SEEDS, SAMPLES, tuning=True))
        for budget in tqdm(BUDGETS, subject.name):
            found, tolerance = ways(pictures, batch, budget)
            body.append([subject.name, str(budget), *(cell(*tried, budget) for tried in found.values()),
                         f"{tolerance:.2g}"])
            ratios.append([subject.name, str(budget), *(ratio(found[one], found[other]) for one, other in pairs)])
    text = TEXT % (markdown(("model", "full steps", *found, "tolerance of error control"), body),
                   markdown(("model", "full steps", *(" : ".join(pair) for pair in pairs)), ratios))
    (RESULTS / "error_control.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
