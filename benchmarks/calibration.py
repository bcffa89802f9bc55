"""What calibrated schedules are worth: `make bench-calibration` writes results/calibration.md.

A schedule is calibrated on one batch of pictures and tried on other seeds and prompts: RMSE of pixels to the full run,
48 pictures of 3 seeds, beside the best order of TaylorSeer on the papers' schedule with as many full steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise

from forecasting import sample
from metrics import over_seeds, rmse
from paper_table import RESULTS, SEEDS, STEPS, TUNING_SEEDS, random_job
from solvers import euler
from subjects import Job, Subject, TinyDiT, TinyFlux
from tables import markdown
from torch import Tensor
from tqdm import tqdm

from femo_core import FeMo, Schedule, TaylorSeer, TrajectoryGram, calibrate
from femo_core.predictor import AbstractPredictor
from femo_core.presets import MEASURED
from femo_core.schedule import AbstractSchedule

SAMPLES = 16  # a seed
BUDGETS = (14, 10, 8, 7)  # full steps of 50
SERIES = tuple(TaylorSeer(order) for order in range(4))
MOMENTUM = tuple(FeMo(1, beta=beta) for beta in (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2))


def record(subject: Subject, job: Job, steps: int = STEPS) -> tuple[Tensor, Tensor, list[float]]:
    """A full run: its pictures, its Gram matrix and the lengths of its steps."""
    gram, lengths = TrajectoryGram(), list[float]()

    def solver(derivative: Callable[[int, Tensor], Tensor], x: Tensor, sigmas: Sequence[float]) -> Tensor:
        lengths.extend(abs(after - before) for before, after in pairwise(sigmas))

        def recorded(step: int, x: Tensor) -> Tensor:
            v = derivative(step, x)
            gram.record(step, v)
            return v
        return euler(recorded, x, sigmas)

    result, _ = sample(subject, job, steps, TaylorSeer(0), Schedule(1), solver=solver)
    gram.close()
    return subject.pixels(result), gram.matrix, lengths


class Trial:
    """Pictures of seeds and prompts that nothing was calibrated on, and how near a forecast comes to them."""

    def __init__(self, subject: Subject, steps: int = STEPS, guidance: float = 2.5):
        self.subject, self.steps = subject, steps
        self.job = dataclasses.replace(random_job(SEEDS, SAMPLES), guidance=guidance)
        self.full, _, _ = record(subject, self.job, steps)

    def error(self, predictor: AbstractPredictor, schedule: AbstractSchedule) -> tuple[float, float]:
        """RMSE to the full run: mean over the seeds, and its standard error."""
        result, _ = sample(self.subject, self.job, self.steps, predictor, schedule)
        return over_seeds(rmse, self.subject.pixels(result), self.full, SAMPLES)


def papers_schedule(subject: Subject, budget: int, steps: int = STEPS) -> Schedule:
    """With so many full steps, the last of them an added cool-down step where no interval gives just so many."""
    for cooldown in (0, 1):
        for interval in range(2, steps):
            schedule = Schedule(interval, subject.warmup, cooldown)
            if len(schedule.full_steps(steps)) == budget:
                return schedule
    raise ValueError(f"no interval gives {budget} full steps of {steps}")


def main() -> None:
    body, transfer = list[list[str]](), list[list[str]]()
    for subject in (TinyFlux(), TinyDiT()):
        trial = Trial(subject)
        job = random_job(TUNING_SEEDS, SAMPLES, tuning=True)
        _, gram, lengths = record(subject, job)
        _, gram_of_one, _ = record(subject, Job(job.prompts[:1], TUNING_SEEDS[0]))
        for budget in tqdm(BUDGETS, subject.name):
            papers = papers_schedule(subject, budget)
            series = {predictor.max_order: trial.error(predictor, papers) for predictor in SERIES}
            order = min(series, key=lambda order: series[order][0])
            best, spread = series[order]
            cells = [subject.name, str(budget), f"{best:.4f} ± {spread:.4f} (O={order})"]
            default = trial.error(MEASURED[subject.preset].predictor, Schedule(papers.interval, papers.warmup_steps, 1))
            cells.append(f"{default[0]:.4f}")
            for predictors in ((SERIES[order],), (SERIES[1],), SERIES, (*SERIES, *MOMENTUM)):
                found = calibrate(gram, lengths, budget, predictors)
                error, _ = trial.error(found.predictor, found.schedule)
                cells.append(f"{error:.4f} ({error / best:.2f})")
            cells.append(_name(found.predictor))
            alone = calibrate(gram_of_one, lengths, budget, (*SERIES, *MOMENTUM))
            error, _ = trial.error(alone.predictor, alone.schedule)
            cells.append(f"{error:.4f} ({error / best:.2f})")
            body.append([*cells, " ".join(map(str, found.schedule.steps))])
        transfer.extend(_transfers(subject, gram, lengths))
    table = markdown(
        ("model", "full steps", "TaylorSeer, papers' schedule", "our default, interval", "its schedule calibrated",
         "O=1 calibrated", "best order, calibrated", "with momentum, too", "chosen", "from one picture", "steps"), body)
    moved = markdown(("model", "calibrated at 50 steps, guidance 2.5; run at", "full steps",
                      "TaylorSeer, papers' schedule", "calibrated", "calibrated for it"), transfer)
    (RESULTS / "calibration.md").write_text(
        f"{__doc__.strip()}\n\nIn brackets the ratio to TaylorSeer on the papers' schedule.\n\n{table}\n\n"
        f"## Where it is not what was calibrated for\n\n{moved}\n", encoding="utf-8")
    print(table, moved, sep="\n\n")


def _transfers(subject: Subject, gram: Tensor, lengths: list[float]) -> list[list[str]]:
    """The schedule of 10 full steps at another guidance, and scaled to another number of steps."""
    rows = []
    for words, steps, guidance, budget in (("guidance 1", STEPS, 1.0, 10), ("guidance 4", STEPS, 4.0, 10),
                                           ("28 steps", 28, 2.5, 8), ("100 steps", 100, 2.5, 10)):
        trial = Trial(subject, steps, guidance)
        papers = papers_schedule(subject, budget, steps)
        best, _ = min(trial.error(predictor, papers) for predictor in SERIES)
        found = calibrate(gram, lengths, budget, (*SERIES, *MOMENTUM))
        other = dataclasses.replace(random_job(TUNING_SEEDS[:1], SAMPLES, tuning=True), guidance=guidance)
        _, own_gram, own_lengths = record(subject, other, steps)
        own = calibrate(own_gram, own_lengths, budget, (*SERIES, *MOMENTUM))
        errors = [trial.error(one.predictor, one.schedule)[0] for one in (found, own)]
        rows.append([subject.name, words, str(len(found.schedule.full_steps(steps))), f"{best:.4f}",
                     *(f"{error:.4f} ({error / best:.2f})" for error in errors)])
    return rows


def _name(predictor: AbstractPredictor) -> str:
    beta = f", β={predictor.beta:g}" if isinstance(predictor, FeMo) else ""
    return f"{type(predictor).__name__} O={predictor.max_order}{beta}"


if __name__ == "__main__":
    main()
