"""What a calibration is worth elsewhere than where it was made: `make bench-calibration` writes
results/calibration_transfer.md.

Made at 50 Euler steps with guidance 2.5, and used for other runs: RMSE of pixels to the full run of the same kind, 48
pictures of 3 seeds, TaylorSeer O=1; in brackets the ratio to the best order of TaylorSeer on the papers' schedule.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from benchmarks.calibration.calibration import SAMPLES, SERIES, Recording, Trial, papers_schedule, record
from benchmarks.models import drawings
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.jobs import STEPS, TUNING_SEEDS, random_job
from benchmarks.sampling.metrics import rmse
from benchmarks.sampling.solvers import Solver, adams_bashforth, ancestral, euler
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux
from benchmarks.training.training import pixels_of, prompts_of
from femo_core import Calibration, calibrate

PREDICTOR = SERIES[1]
BUDGET = 10
PICTURES = (1, 4, 16, 48)  # to calibrate on
DRAWS = 4  # other pictures each time
LORA_RANK, LORA_STEPS, LORA_BATCH, LORA_RATE = 4, 300, 32, 2e-3

HEADS = (
    ("model", "run at", "full steps", "TaylorSeer, papers' schedule", "calibrated", "calibrated for it"),
    ("model", "full steps", *(f"pictures: {count}" for count in PICTURES)),
)
TEXT = f"""{__doc__.strip()}

%s

The LoRA (rank {LORA_RANK}, {LORA_STEPS} steps) teaches a model to draw negatives; "merged" is half way to it. In
brackets how far their full runs' pictures are from the model's own. Nowhere is a schedule that was calibrated for the
very kind of run better by more than chance, but at 28 steps on the DiT; of a run with an ancestral sampler, whose noise
is in what is recorded, it is much worse: for such samplers, too, calibrate with a deterministic one.

## How many pictures to calibrate on

Ratios to TaylorSeer on the papers' schedule: the mean of {DRAWS} calibrations on other pictures each, and the worst.
More than one hardly helps. On the tiny DiT, at order 1, what is found is often no better than the papers' schedule,
whatever it is calibrated on.

%s
"""


@dataclass(frozen=True)
class Elsewhere:
    """A kind of run that was not calibrated for."""

    name: str
    subject: Subject
    steps: int = STEPS
    guidance: float = 2.5
    solver: Solver = euler
    budget: int = BUDGET

    def row(self, recording: Recording) -> list[str]:
        trial = Trial(self.subject, self.steps, self.guidance, solver=self.solver)
        best, _, _ = trial.best_of_papers(papers_schedule(self.subject, self.budget, self.steps))
        job = dataclasses.replace(random_job(TUNING_SEEDS[:1], SAMPLES, tuning=True), guidance=self.guidance)
        found = [calibrated(one, self.budget).schedule
                 for one in (recording, record(self.subject, job, self.steps, self.solver))]
        return [self.subject.name, self.name, str(len(found[0].full_steps(self.steps))), f"{best:.4f}",
                *(trial.cell(PREDICTOR, schedule, best) for schedule in found)]


def calibrated(recording: Recording, budget: int) -> Calibration:
    return calibrate(recording.gram, recording.lasting, budget, [PREDICTOR])


def elsewheres(subject: Subject, recording: Recording) -> Iterator[Elsewhere]:
    yield Elsewhere("guidance 1", subject, guidance=1.0)
    yield Elsewhere("guidance 4", subject, guidance=4.0)
    yield Elsewhere("28 steps", subject, steps=28, budget=8)
    yield Elsewhere("100 steps", subject, steps=100)
    channels, rows, columns = subject.shape
    yield Elsewhere("1.5 times the size", resized(subject, (channels, rows * 3 // 2, columns * 3 // 2)))
    yield Elsewhere("twice the width", resized(subject, (channels, rows, 2 * columns)))
    yield Elsewhere("Adams–Bashforth", subject, solver=adams_bashforth)
    yield Elsewhere("Euler ancestral", subject, solver=ancestral(subject.signal, seed=12345))
    for name, other in finetuned(subject).items():
        yield Elsewhere(f"{name} ({distance(recording, other):.2f})", other)


def resized(subject: Subject, shape: tuple[int, int, int]) -> Subject:
    other = copy.copy(subject)
    other.shape = shape
    return other


def distance(recording: Recording, other: Subject) -> float:
    """RMSE between the pictures recorded of a model, and another's of the first seed's noise."""
    pictures = record(other, random_job(TUNING_SEEDS[:1], SAMPLES, tuning=True)).pixels
    return rmse(pictures, recording.pixels[:SAMPLES])


class LowRank(nn.Module):
    """W + B·A in the place of a matrix W (Hu et al. 2022)."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.a = nn.Parameter(torch.randn(LORA_RANK, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.b = nn.Parameter(torch.zeros(weight.shape[0], LORA_RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def finetuned(subject: Subject) -> dict[str, Subject]:
    """The model with a LoRA on all matrices of its blocks, trained to draw the drawings' negatives; and half way."""
    torch.manual_seed(0)
    other, merged = copy.copy(subject), copy.copy(subject)
    other.model, merged.model = copy.deepcopy(subject.model), copy.deepcopy(subject.model)
    layers = [module for name, module in other.model.named_modules()
              if "blocks." in name and isinstance(module, nn.Linear)]
    low_rank = [LowRank(layer.weight) for layer in layers]
    for layer, each in zip(layers, low_rank, strict=True):
        parametrize.register_parametrization(layer, "weight", each)
    _train(other, [parameter for each in low_rank for parameter in (each.a, each.b)])
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")
    learned = other.model.state_dict()
    for name, weight in merged.model.state_dict().items():
        weight.lerp_(learned[name], 0.5)
    return {"with a LoRA": other, "merged": merged}


def _train(subject: Subject, parameters: list[Tensor]) -> None:
    images, words = drawings.draw_many(2000, seed=1)
    clean, prompts = subject.image(-pixels_of(images)), prompts_of(torch.from_numpy(words))
    levels, rng = subject.levels(STEPS), random.Random(0)
    optimiser = torch.optim.AdamW(parameters, LORA_RATE)
    for _ in tqdm(range(LORA_STEPS), f"LoRA for the {subject.name}", leave=False):
        rows, level = rng.sample(range(len(clean)), LORA_BATCH), rng.choice(levels)
        noise = torch.randn(LORA_BATCH, *subject.shape)
        x = subject.signal(level.sigma) * clean[rows] + level.sigma * noise
        slope = (subject.signal(level.sigma) - subject.signal(0.0)) / level.sigma  # signals are straight lines in σ
        job = Job(tuple(prompts[row] for row in rows), guidance=1.0)
        loss = (subject.derivative(job, x, level, {}) - noise - slope * clean[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def by_pictures(subject: Subject) -> list[str]:
    """The row of the second table."""
    trial, cells = Trial(subject), list[str]()
    best, _, _ = trial.best_of_papers(papers_schedule(subject, BUDGET))
    for count in PICTURES:
        ratios = []
        for draw in range(DRAWS):
            whole = random_job((1000 + draw,), count, tuning=True)
            schedule = calibrated(record(subject, whole), BUDGET).schedule
            ratios.append(trial.error(PREDICTOR, schedule)[0] / best)
        cells.append(f"{sum(ratios) / DRAWS:.2f} ({max(ratios):.2f})")
    return [subject.name, str(BUDGET), *cells]


def main() -> None:
    tables = [list[list[str]]() for _ in HEADS]
    for subject in (TinyFlux(), TinyDiT()):
        recording = record(subject, random_job(TUNING_SEEDS, SAMPLES, tuning=True))
        for elsewhere in tqdm(elsewheres(subject, recording), subject.name):
            tables[0].append(elsewhere.row(recording))
        tables[1].append(by_pictures(subject))
    text = TEXT % tuple(markdown(head, body) for head, body in zip(HEADS, tables, strict=True))
    (RESULTS / "calibration_transfer.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
