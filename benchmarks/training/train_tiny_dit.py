"""Trains the tiny DiT: `python -m benchmarks.training.train_tiny_dit` (about 45 minutes on 2 cores).

As DiT is trained: noise prediction, uniform timesteps of the linear schedule, the variance learned through the
variational bound with the mean held fixed (Nichol and Dhariwal 2021), one class in ten dropped for guidance. In
pixel space, on the tiny Flux's drawings at half their size. Writes checkpoints/tiny_dit.safetensors (bfloat16, the
original's key names) and tiny_dit.json (how it was made and how good it is).
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.models.tiny_dit import BETAS, CHECKPOINT, NULL_CLASS, SIGNAL, SIZE, TINY, DiT, half_size, labels_of
from benchmarks.sampling.subjects import TinyDiT
from benchmarks.training.training import Optimiser, initialise, run

BATCH = 64
BEFORE = torch.cat((torch.ones(1, dtype=torch.float64), SIGNAL[:-1]))  # ᾱ of the timestep below
POSTERIOR = BETAS * (1 - BEFORE) / (1 - SIGNAL)  # variance of q(x_{t−1} | x_t, x_0)
SMALLEST = POSTERIOR.clamp(min=POSTERIOR[1]).log()  # a learned variance lies between this and β (0 at t = 0)


def at(table: Tensor, t: Tensor) -> Tensor:
    return table[t].float()[:, None, None, None]


def variational_bound(x: Tensor, noisy: Tensor, noise: Tensor, variance: Tensor, t: Tensor) -> Tensor:
    """Bits per value of p(x_{t−1} | x_t) with the learned `variance` (−1 … 1 between its bounds), mean."""
    def mean_of(clean: Tensor) -> Tensor:
        """Of q(x_{t−1} | x_t, clean)."""
        return (at(BETAS * BEFORE.sqrt() / (1 - SIGNAL), t) * clean
                + at((1 - BEFORE) * (1 - BETAS).sqrt() / (1 - SIGNAL), t) * noisy)

    share = (variance + 1) / 2
    log_variance = share * at(BETAS.log(), t) + (1 - share) * at(SMALLEST, t)
    predicted = mean_of((noisy - at((1 - SIGNAL).sqrt(), t) * noise) / at(SIGNAL.sqrt(), t))
    true_log = at(SMALLEST, t)
    divergence = 0.5 * (log_variance - true_log - 1 + (true_log - log_variance).exp()
                        + (mean_of(x) - predicted).square() * (-log_variance).exp())
    last = -log_probability(x, predicted, (0.5 * log_variance).exp())
    return torch.where(t[:, None, None, None] == 0, last, divergence).mean() / math.log(2)


def log_probability(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Of x, one of 256 levels in −1 … 1, under a Gaussian integrated over its level."""
    normal = torch.distributions.Normal(mean, deviation)
    above = torch.where(x > 0.999, 1.0, normal.cdf(x + 1 / 255))
    below = torch.where(x < -0.999, 0.0, normal.cdf(x - 1 / 255))
    return (above - below).clamp(min=1e-12).log()


def fit(model: DiT, pixels: Tensor, labels: Tensor, steps: int) -> tuple[DiT, list[float], list[float]]:
    """The averaged model, and the losses of noise and of variance."""
    optimiser = Optimiser(model, steps, peak_rate=1.5e-3, no_muon=("adaLN",))
    network = torch.compile(model, dynamic=False)
    noise_losses, variance_losses = [], []
    for _ in tqdm(range(steps), desc="tiny DiT", mininterval=10):
        rows, t = torch.randint(len(pixels), (BATCH,)), torch.randint(1000, (BATCH,))
        clean, noise = pixels[rows], torch.randn(BATCH, 3, SIZE, SIZE)
        noisy = at(SIGNAL.sqrt(), t) * clean + at((1 - SIGNAL).sqrt(), t) * noise
        classes = torch.where(torch.rand(BATCH) < 0.1, NULL_CLASS, labels[rows])
        with torch.autocast("cpu", torch.bfloat16):
            predicted, variance = network(noisy, t, classes).float().chunk(2, dim=1)
        noise_loss = (predicted - noise).square().mean()
        variance_loss = variational_bound(clean, noisy, predicted.detach(), variance, t)
        optimiser.step(noise_loss + variance_loss)
        noise_losses.append(noise_loss.item())
        variance_losses.append(variance_loss.item())
    return optimiser.average, noise_losses, variance_losses


def train(options: argparse.Namespace, pixels: Tensor, words: Tensor) -> dict[str, Any]:
    """Writes the checkpoint, and says how it went."""
    model = DiT(TINY)
    initialise(model, zeros=("adaLN", "final_layer"))
    for table in (model.y_embedder.embedding_table, *model.t_embedder.mlp[::2]):
        torch.nn.init.normal_(table.weight, std=0.02)
    average, noise_losses, variance_losses = fit(model, half_size(pixels), labels_of(words), options.steps)
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in average.state_dict().items()}
    save_file(weights, options.out / CHECKPOINT.name, metadata={"format": "pt"})
    return {
        "command": f"python -m benchmarks.training.train_tiny_dit --steps {options.steps} "
                   f"--drawings {options.drawings}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "noise_loss": float(np.mean(noise_losses[-200:])),
        "variance_loss": float(np.mean(variance_losses[-200:])),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=6500)
    run(arguments, "tiny_dit", TinyDiT, train)


if __name__ == "__main__":
    main()
