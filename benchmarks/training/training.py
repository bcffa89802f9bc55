"""What both trainers share: optimisers, learning-rate schedule, the average of the weights, and the final judgement."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import drawings
from benchmarks.models.classifier import accuracy, train_classifier
from benchmarks.models.tiny_flux import CHECKPOINTS
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.subjects import Job, Subject
from femo_core import Schedule, TaylorSeer

MUON_RATE = 6.0  # times AdamW's learning rate


class WideMuon(torch.optim.Muon):
    """Muon in float32: torch's works in bfloat16, which takes a CPU without AMX longer than the network itself."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                average = state.setdefault("momentum_buffer", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                direction = nearest_orthogonal(matrix.grad.lerp(average, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(direction, alpha=group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    """By five Newton–Schulz iterations, with the coefficients of Jordan et al. (2024)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


class Optimiser:
    """Muon for the blocks' matrices (Jordan et al. 2024: learns them in far fewer steps), AdamW for the rest.

    `average` holds the exponential moving average of the weights.
    """

    def __init__(self, model: nn.Module, steps: int, peak_rate: float, no_muon: tuple[str, ...],
                 half: bool = True):
        """`no_muon`: parts of the names of matrices in blocks that AdamW shall keep (modulations)."""
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        matrices = [
            p for name, p in model.named_parameters()
            if p.ndim == 2 and "blocks." in name and not any(part in name for part in no_muon)]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        muon = torch.optim.Muon if half else WideMuon
        self.optimisers = [
            muon(matrices, lr=MUON_RATE * peak_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                o, o.param_groups[0]["lr"], total_steps=steps, pct_start=0.05, cycle_momentum=False)
            for o in self.optimisers
        ]
        self.done = 0

    def step(self, loss: Tensor) -> None:
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for each in (*self.optimisers, *self.schedules):
            each.step()
        decay = min(0.999, (1 + self.done) / (10 + self.done))
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        self.done += 1


def initialise(model: nn.Module, zeros: tuple[str, ...]) -> None:
    """Gates, and the last layer, start at zero: every block starts as the identity (Peebles and Xie 2023).

    `zeros`: parts of the names of the weights that start at zero, beside all biases.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") or any(part in name for part in zeros):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            torch.nn.init.xavier_uniform_(parameter)


def pixels_of(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in −1 … 1."""
    return torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1


def prompts_of(words: Tensor) -> list[str]:
    """(B, 3) indices into drawings.WORDS -> ["red house day", …]."""
    return [" ".join(drawings.WORDS[i] for i in row) for row in words.tolist()]


def evaluate(subject: Subject, pixels: Tensor, words: Tensor) -> dict[str, float]:
    """A classifier's accuracy on new drawings and on 400 samples of 50 steps. pixels, words: what it is trained on."""
    judge = train_classifier(subject.drawing(pixels), words)
    real, real_words = drawings.draw_many(2000, seed=777)
    wanted = torch.from_numpy(drawings.draw_many(400, seed=778)[1])
    jobs = [Job(tuple(prompts_of(wanted[i : i + 100])), seed=i) for i in range(0, 400, 100)]
    samples = torch.cat([
        subject.pixels(sample(subject, job, 50, TaylorSeer(1), Schedule(1))[0]) for job in jobs])
    on_real = accuracy(judge, subject.drawing(pixels_of(real)), torch.from_numpy(real_words))
    on_samples = accuracy(judge, samples, wanted)
    return {f"real_{name}_accuracy": value for name, value in on_real.items()} | {
        f"sample_{name}_accuracy": value for name, value in on_samples.items()}


def run(arguments: argparse.ArgumentParser, name: str, subject: Callable[[Path], Subject],
        train: Callable[[argparse.Namespace, Tensor, Tensor], dict[str, Any]]) -> None:
    """A trainer's command line, with the options that both have: trains (if asked), judges, reports to `name`.json.

    `train` gets the options, the drawings' pixels and their words, and writes the checkpoint; `subject` loads it.
    """
    arguments.add_argument("--drawings", type=int, default=30000)
    arguments.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder")
    arguments.add_argument("--evaluate", action="store_true", help="measure the checkpoint in --out, train nothing")
    options = arguments.parse_args()

    torch.manual_seed(0)
    started = time.time()
    images, indices = drawings.draw_many(options.drawings, seed=0)
    pixels, words = pixels_of(images), torch.from_numpy(indices)
    report: dict[str, Any] = {}
    if not options.evaluate:
        options.out.mkdir(parents=True, exist_ok=True)
        report = train(options, pixels, words)
        report["minutes"] = round((time.time() - started) / 60, 1)
    report |= evaluate(subject(options.out), pixels, words)
    text = json.dumps(report, indent=2)
    if not options.evaluate:
        (options.out / f"{name}.json").write_text(text + "\n")
    print(text)
