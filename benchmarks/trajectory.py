"""The trajectory, seen: `python -m benchmarks.trajectory` draws results/trajectory.png.

Of a full run of each small model the hidden states are kept. Each predictor is shown those of the full steps alone and
asked for the others, so that the figure shows its own error and not what the sampler makes of it: the paths projected
on their two principal components, the error by step, and Adapted-FeMo's β. States are drawn as the head normalises
them: their scale is nothing to the picture, and FeMo started at a feature changes it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from benchmarks.pack.sites import SITES
from torch import Tensor

from benchmarks.pages.results import RESULTS
from benchmarks.sampling.jobs import STEPS, random_prompts
from benchmarks.sampling.solvers import euler
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux
from femo_core import FeMo, Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor
from femo_core.presets import MEASURED, PAPERS

matplotlib.use("Agg")
from matplotlib import pyplot

SAMPLES = 8


def true_path(subject: Subject, job: Job, steps: int) -> Tensor:
    """Hidden states of a full run, (steps, B, T, D): of the first stream, the guided one."""
    levels, path = subject.levels(steps), []

    def derivative(step: int, x: Tensor) -> Tensor:
        captured: dict[str, Tensor] = {}
        with SITES["hidden"].recording(
                subject.model, subject.family, lambda name, feature: captured.update(hidden=feature.clone())):
            v = subject.derivative(job, x, levels[step], {})
        path.append(captured["hidden"][: len(x)])
        return v

    with torch.inference_mode():
        euler(derivative, subject.start(job, levels[0]), [*(level.sigma for level in levels), 0.0])
    return torch.stack(path)


@dataclass(frozen=True)
class Forecast:
    path: Tensor  # like the true one; at full steps equal to it
    betas: dict[int, Tensor]  # of Adapted-FeMo, (B,) by full step


def forecast(predictor: AbstractPredictor, path: Tensor, schedule: Schedule) -> Forecast:
    full = set(schedule.full_steps(len(path)))
    state, found, betas = predictor.init(), [], {}
    for step, feature in enumerate(path):
        if step not in full:
            found.append(predictor.predict(state, step))
            continue
        found.append(feature)
        if step >= schedule.first_recorded_step:
            state = predictor.update(state, feature, step)
            if isinstance(state.beta, Tensor):
                betas[step] = state.beta
    return Forecast(torch.stack(found), betas)


def normalised(path: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(path, path.shape[-1:])


def relative_error(path: Tensor, truth: Tensor) -> Tensor:
    """By step: distance over the feature's own norm, mean over samples; not a number where they are the same."""
    error = ((path - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2)).mean(1)
    return error.where(error > 1e-5, torch.nan)


def draw(subject: Subject, axes: list[pyplot.Axes], interval: int) -> None:
    prompts = random_prompts(0, SAMPLES)
    truth = true_path(subject, Job(prompts), STEPS)
    adapted = PAPERS[f"Adapted-FeMo, {subject.preset}, O=1"].predictor
    predictors: dict[str, AbstractPredictor] = {
        "FORA": TaylorSeer(0), "TaylorSeer O=1": TaylorSeer(1), "TaylorSeer O=2": TaylorSeer(2),
        "FeMo β=0.325": FeMo(1, beta=0.325), "FeMo β=−0.2": FeMo(1, beta=-0.2), "Adapted-FeMo": adapted,
        "FeMo, default": MEASURED[subject.preset].predictor,
    }
    schedule = Schedule(interval, subject.warmup, 1)
    found = {name: forecast(predictor, truth, schedule) for name, predictor in predictors.items()}

    paths = {name: normalised(each.path) for name, each in found.items()}
    truth = normalised(truth)
    first = truth[:, 0].flatten(1)
    mean = first.mean(0)
    _, _, components = torch.pca_lowrank(first - mean, q=2, center=False)
    flat = ((first - mean) @ components).T
    axes[0].plot(*flat, "k.-", linewidth=1, label="true")
    full = list(schedule.full_steps(STEPS))
    axes[0].plot(*flat[:, full], "ko", markersize=6, fillstyle="none", label="full steps")
    for i, name in enumerate(("TaylorSeer O=1", "FeMo β=0.325", "FeMo, default")):
        axes[0].plot(*((paths[name][:, 0].flatten(1) - mean) @ components).T, f"C{i}.", markersize=4, label=name)
    axes[0].set(title=f"{subject.name}: hidden state of one sample, PCA", xlabel="component 1", ylabel="component 2")
    axes[0].legend(fontsize=7)
    for name, path in paths.items():
        axes[1].plot(relative_error(path, truth), label=name)
    axes[1].set(yscale="log", title=f"forecast error, N = {interval}", xlabel="step", ylabel="relative error")
    axes[1].legend(fontsize=7)
    steps = list(found["Adapted-FeMo"].betas)
    for i in range(SAMPLES):
        axes[2].plot(steps, [found["Adapted-FeMo"].betas[step][i].item() for step in steps], ".-", linewidth=0.8)
    axes[2].set(title="β of Adapted-FeMo, one line a sample", xlabel="step", ylabel="β", xlim=(0, STEPS))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--interval", type=int, default=6)
    arguments.add_argument("--out", type=Path, default=RESULTS / "trajectory.png")
    options = arguments.parse_args()
    figure, axes = pyplot.subplots(2, 3, figsize=(15, 8))
    for subject, row in zip((TinyFlux(), TinyDiT()), axes, strict=True):
        draw(subject, list(row), options.interval)
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
