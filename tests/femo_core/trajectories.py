"""Made-up features of a run, whose answers can be found directly."""

from __future__ import annotations

import torch


def trajectory(steps, width=5, seed=0):
    """A smooth one with a kink: (steps, width)."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    rates, phases = 6 * torch.rand(2, width, generator=generator, dtype=torch.float64)
    return torch.sin(rates * times**2 + phases) + (times > 0.7) * (times - 0.7) * 3


def gram_of(features):
    return features @ features.T / features.shape[1]


def flow_levels(steps, shift=1.0):
    """Noise levels 1 … 0 of a flow model at a timestep shift."""
    times = [1 - step / steps for step in range(steps + 1)]
    return [shift * time / (1 + (shift - 1) * time) for time in times]


def gaussian_gram(sigmas, spreads=(0.05, 0.2, 1.0, 4.0)):
    """What the best flow network gives for Gaussian data: dx/dσ of paths x = noise · √((1 − σ)² s² + σ²), by spread s.

    Smooth in σ, and fast where σ / (1 − σ) passes s.
    """
    levels = torch.tensor(sigmas[:-1], dtype=torch.float64)[:, None]
    data = torch.tensor(spreads, dtype=torch.float64)
    paths = (levels - (1 - levels) * data**2) / ((1 - levels) ** 2 * data**2 + levels**2).sqrt()
    return gram_of(paths)
