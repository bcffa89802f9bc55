"""What calibration should go by: `make bench-calibration` writes results/calibration_cost.md.

Correlation of the errors expected of 40 schedules with their real errors (RMSE of pixels, 48 pictures; logarithms), by
the spread of the data that says how much of an error lasts, and by how far errors of different gaps are taken to point
the same way. TaylorSeer O=1, tuning seeds; the errors are of other pictures than those that were calibrated on.
"""

from __future__ import annotations

import math
import random

from tqdm import tqdm

from benchmarks.calibration.calibration import BUDGETS, SAMPLES, Recording, Trial, papers_schedule, record
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.jobs import STEPS, TUNING_SEEDS, random_job
from benchmarks.sampling.subjects import TinyDiT, TinyFlux
from femo_core import ExplicitSchedule, TaylorSeer, calibrate, lasting_step_lengths
from femo_core.schedule import AbstractSchedule

PREDICTOR = TaylorSeer(1)
SPREADS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 16.0, math.inf)
CORRELATIONS = (0.0, 0.5, 0.75, 1.0)
OTHER_SEEDS = (110, 111, 112)


def schedules(trial: Trial, recording: Recording) -> list[AbstractSchedule]:
    """The papers', some calibrated with other spreads, and random ones that are denser early or late."""
    rng, found = random.Random(1), list[AbstractSchedule]()
    for budget in BUDGETS:
        found.append(papers_schedule(trial.subject, budget))
        for spread in (2.0, 4.0, 16.0, 1e6):
            weights = lasting_step_lengths(recording.sigmas, recording.signals, spread)
            found.append(calibrate(recording.gram, weights, budget, [PREDICTOR], gap_correlation=0.0).schedule)
        for _ in range(5):
            power = math.exp(rng.uniform(-0.5, 0.5))
            steps = {round(STEPS * (i / budget) ** power + rng.uniform(-0.6, 0.6)) for i in range(1, budget)}
            found.append(ExplicitSchedule((0, *sorted({min(STEPS - 1, max(1, step)) for step in steps}))))
    return found


def main() -> None:
    body = []
    for subject in (TinyFlux(), TinyDiT()):
        trial = Trial(subject, job=random_job(OTHER_SEEDS, SAMPLES, tuning=True))
        recording = record(subject, random_job(TUNING_SEEDS, SAMPLES, tuning=True))
        for schedule in tqdm(schedules(trial, recording), subject.name):
            trial.error(PREDICTOR, schedule)
        for spread in SPREADS:
            weights = lasting_step_lengths(recording.sigmas, recording.signals, spread)
            body.append([subject.name, f"{spread:g}", *(
                f"{trial.correlation(recording, weights, together):.3f}" for together in CORRELATIONS)])
        body.append([subject.name, "step lengths", *(
            f"{trial.correlation(recording, recording.lengths, together):.3f}" for together in CORRELATIONS)])
    table = markdown(("model", "spread", *(f"gaps together: {value:g}" for value in CORRELATIONS)), body)
    (RESULTS / "calibration_cost.md").write_text(f"{__doc__.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
