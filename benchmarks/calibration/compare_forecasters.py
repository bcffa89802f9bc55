"""Other forecasters on the papers' schedule, and on the one calibrated for each: `make bench-calibration` writes
results/forecasters.md.

10 full steps of 50. RMSE of pixels to the full run, mean and standard error of 3 seeds, 48 pictures; in brackets that
of the median picture. "Expected" is what calibration expects of its schedule, in the units of the model's data.
"""

from __future__ import annotations

from tqdm import tqdm

from benchmarks.calibration.calibration import SAMPLES, Trial, papers_schedule, record
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.rivals.forecasters import DividedDifferences, HiCache, Spectrum
from benchmarks.sampling.jobs import TUNING_SEEDS, random_job
from benchmarks.sampling.subjects import TinyDiT, TinyFlux
from femo_core import FeMo, TaylorSeer, calibrate
from femo_core.predictor import AbstractPredictor
from femo_core.schedule import AbstractSchedule

BUDGET = 10  # full steps of 50
FORECASTERS: dict[str, AbstractPredictor] = {
    "TaylorSeer O=1": TaylorSeer(1), "TaylorSeer O=2": TaylorSeer(2), "FeMo O=1, β=−0.3": FeMo(1, beta=-0.3),
    "HiCache O=1": HiCache(1), "HiCache O=2": HiCache(2), "divided differences O=2": DividedDifferences(2),
    "Spectrum, blend 0.5": Spectrum(), "Spectrum, blend 1": Spectrum(blend=1.0),
}


def main() -> None:
    body = []
    for subject in (TinyFlux(), TinyDiT()):
        trial, recording = Trial(subject), record(subject, random_job(TUNING_SEEDS, SAMPLES, tuning=True))

        def cell(predictor: AbstractPredictor, schedule: AbstractSchedule, trial: Trial = trial) -> str:
            error, spread = trial.error(predictor, schedule)
            return f"{error:.4f} ± {spread:.4f} ({trial.median(predictor, schedule):.4f})"

        papers = papers_schedule(subject, BUDGET)
        for name, predictor in tqdm(FORECASTERS.items(), subject.name):
            own = calibrate(recording.gram, recording.lasting, BUDGET, [predictor])
            body.append([subject.name, name, cell(predictor, papers), cell(predictor, own.schedule),
                         f"{own.expected_error:.4f}"])
    table = markdown(("model", "forecaster", "papers' schedule", "calibrated", "expected"), body)
    (RESULTS / "forecasters.md").write_text(f"{__doc__.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
