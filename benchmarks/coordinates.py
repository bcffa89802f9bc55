"""What forecasts should go by: the number of steps, or how far the noise level falls in them. `make bench-samplers`

PSNR to the full run, 48 pictures of 3 seeds, in results/coordinates.md. The tiny DiT's DDIM steps fall evenly, so
that there the two are the same; its row is of the Karras levels, which do not.
"""

from __future__ import annotations

import itertools

from tqdm import tqdm

from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.jobs import SEEDS, random_job
from benchmarks.sampling.metrics import over_seeds, psnr
from benchmarks.sampling.subjects import Level, Subject, TinyDiT, TinyFlux
from femo_core import Schedule, TaylorSeer
from femo_core.presets import MEASURED

SAMPLES = 16  # a seed
RUNS = tuple(itertools.product((50, 28), (3, 4, 6)))


def levels_of(subject: Subject, steps: int) -> list[Level]:
    """The usual ones; of the DiT those that Karras et al. (2022) space by σ^(1/7)."""
    usual = subject.levels(steps)
    if isinstance(subject, TinyFlux):
        return usual
    finer = subject.levels(1000)
    high, low = usual[0].sigma ** (1 / 7), usual[-1].sigma ** (1 / 7)
    wanted = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)]
    return [min(finer, key=lambda level, sigma=sigma: abs(level.sigma - sigma)) for sigma in wanted]


def main() -> None:
    body = []
    for subject, (steps, interval) in itertools.product((TinyFlux(), TinyDiT()), tqdm(RUNS)):
        job = random_job(SEEDS, SAMPLES)
        levels = levels_of(subject, steps)
        full, _ = sample(subject, job, steps, TaylorSeer(0), Schedule(1), levels=levels)
        reference = subject.pixels(full)
        for predictor in (TaylorSeer(1), TaylorSeer(2), MEASURED[subject.preset].predictor):
            cells = []
            for coordinate in ("steps", "sigmas"):
                result, _ = sample(subject, job, steps, predictor, Schedule(interval, subject.warmup, 1),
                                   coordinate=coordinate, levels=levels)
                mean, error = over_seeds(psnr, subject.pixels(result), reference, SAMPLES)
                cells.append(f"{mean:.1f} ± {error:.1f}")
            name = f"{type(predictor).__name__} O={predictor.max_order}"
            body.append([subject.name, str(steps), str(interval), name, *cells])
    table = markdown(("model", "steps", "N", "predictor", "by steps", "by sigmas"), body)
    (RESULTS / "coordinates.md").write_text(f"{__doc__.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
