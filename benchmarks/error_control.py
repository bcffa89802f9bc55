"""Choosing full steps as the run goes, against calibrated schedules: `make bench-calibration` writes
results/error_control.md.

Error control: the forecast's error, measured at each full step, widens or narrows the next gap. Verification (SpeCa): a
step whose forecast is off is computed in full; here by an oracle that knows the error itself, at no cost, which no
probe can beat. Both decide for each picture by itself, from the errors on its own full run, with one tolerance that
gives so many full steps on average. RMSE of pixels to the full run, TaylorSeer O=1, mean and standard error of 24
pictures, each a run of its own; the median picture in brackets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

from calibration import BUDGETS, SAMPLES, Recording, papers_schedule, record
from forecasting import sample
from metrics import mean_and_error, rmse
from paper_table import RESULTS, STEPS, TUNING_SEEDS, random_job, random_prompts
from subjects import Job, Subject, TinyDiT, TinyFlux
from tables import markdown
from torch import Tensor
from tqdm import tqdm

from femo_core import ExplicitSchedule, TaylorSeer, calibrate

PREDICTOR = TaylorSeer(1)
PICTURES = 24
WARMUP = 2  # full steps, before there is a slope
WIDEST_GAP = 12

Chooser = Callable[[Recording, float], tuple[int, ...]]
"""Full steps of a picture's run, by the tolerance."""


def forecast_error(recording: Recording, before: int, last: int, step: int, weigh: bool) -> float:
    """Of the line through full steps `before` and `last`, at `step`: relative, or by how much of it lasts."""
    slope = (step - last) / (last - before)
    parts = {step: 1.0, last: -1.0 - slope, before: slope}
    square = sum(a * b * float(recording.gram[i, j]) for i, a in parts.items() for j, b in parts.items())
    scale = recording.lasting[step] if weigh else float(recording.gram[step, step]) ** -0.5
    return math.sqrt(max(0.0, square)) * scale


def controlled(recording: Recording, tolerance: float, weigh: bool = False) -> tuple[int, ...]:
    """The error of a line grows by the square of the gap: the next gap is the one at which it meets the tolerance."""
    steps, gap = list(range(WARMUP)), 1.0
    while steps[-1] + round(gap) < STEPS:
        steps.append(steps[-1] + round(gap))
        error = forecast_error(recording, *steps[-3:], weigh=weigh)
        made = steps[-1] - steps[-2]
        gap = min(WIDEST_GAP, max(1.0, made * math.sqrt(tolerance / max(error, 1e-12))))
    return tuple(steps)


def verified(recording: Recording, tolerance: float, weigh: bool = False) -> tuple[int, ...]:
    """Full where the forecast would be off by more than the tolerance, and where the gap is the widest."""
    steps = list(range(WARMUP))
    for step in range(WARMUP, STEPS):
        error = forecast_error(recording, *steps[-2:], step, weigh=weigh)
        if error > tolerance or step - steps[-1] >= WIDEST_GAP:
            steps.append(step)
    return tuple(steps)


CHOOSERS: dict[str, Chooser] = {
    "error control": controlled,
    "error control, of what lasts": lambda recording, tolerance: controlled(recording, tolerance, weigh=True),
    "oracle verification": verified,
    "oracle verification, of what lasts": lambda recording, tolerance: verified(recording, tolerance, weigh=True),
}


def chosen(chooser: Chooser, recordings: list[Recording], budget: int) -> list[tuple[int, ...]]:
    """With the tolerance that gives `budget` full steps on average, or the next that gives more."""
    low, high = 1e-9, 1e3  # too many full steps, and too few
    for _ in range(60):
        middle = math.sqrt(low * high)
        count = sum(len(chooser(recording, middle)) for recording in recordings) / len(recordings)
        low, high = (middle, high) if count >= budget else (low, middle)
    return [chooser(recording, low) for recording in recordings]


def main() -> None:
    body = []
    for subject in (TinyFlux(), TinyDiT()):
        jobs = [Job((prompt,), seed) for seed, prompt in enumerate(random_prompts(0, PICTURES))]
        recordings = [record(subject, job) for job in tqdm(jobs, subject.name)]
        batch = record(subject, random_job(TUNING_SEEDS, SAMPLES, tuning=True))
        for budget in BUDGETS:
            papers = papers_schedule(subject, budget).full_steps(STEPS)
            calibrated = calibrate(batch.gram, batch.lasting, budget, [PREDICTOR]).schedule.steps
            ways = {"papers' schedule": [papers] * PICTURES, "calibrated": [calibrated] * PICTURES}
            ways |= {name: chosen(chooser, recordings, budget) for name, chooser in CHOOSERS.items()}
            cells = [subject.name, str(budget)]
            for schedules in tqdm(ways.values(), f"{subject.name}, {budget}"):
                errors = [rmse(run(subject, job, steps), recording.pixels)
                          for job, steps, recording in zip(jobs, schedules, recordings, strict=True)]
                mean, spread = mean_and_error(errors)
                count = sum(map(len, schedules)) / PICTURES
                runs = f", {count:.1f} runs" if count > budget + 0.05 else ""
                cells.append(f"{mean:.4f} ± {spread:.4f} ({median(errors):.4f}){runs}")
            body.append(cells)
    table = markdown(("model", "full steps", *ways), body)
    (RESULTS / "error_control.md").write_text(f"{__doc__.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


def run(subject: Subject, job: Job, steps: tuple[int, ...]) -> Tensor:
    result, _ = sample(subject, job, STEPS, PREDICTOR, ExplicitSchedule(steps))
    return subject.pixels(result)


if __name__ == "__main__":
    main()
