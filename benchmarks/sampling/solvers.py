"""Solvers of dx/dσ = v(x, σ), the sampling equation of both small models, from noise at σ_0 to an image at σ = 0.

Each takes `derivative` (step index, x) -> v, the starting x and the falling noise levels, one more than steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Derivative = Callable[[int, Tensor], Tensor]
Solver = Callable[[Derivative, Tensor, Sequence[float]], Tensor]


def euler(derivative: Derivative, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler's method. On noise prediction with σ = √((1 − ᾱ) / ᾱ) it is DDIM (Song et al. 2021)."""
    for i in range(len(sigmas) - 1):
        x = x + (sigmas[i + 1] - sigmas[i]) * derivative(i, x)
    return x


def adams_bashforth(derivative: Derivative, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The two-step Adams–Bashforth method for uneven steps: second order, one evaluation a step."""
    previous, last_step = None, 0.0
    for i in range(len(sigmas) - 1):
        step, v = sigmas[i + 1] - sigmas[i], derivative(i, x)
        slope = v if previous is None else v + step / (2 * last_step) * (v - previous)
        x, previous, last_step = x + step * slope, v, step
    return x


def dpmpp_2m(signal: Callable[[float], float]) -> Solver:
    """DPM-Solver++(2M) (Lu et al. 2022): multistep, second order in log (signal / σ), on the picture x − σ·v, its last
    step of first order. `signal` (σ) is the picture's factor in x: 1 − σ or 1."""
    def solve(derivative: Derivative, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        before, last_length = None, 0.0
        for i, (sigma, lower) in enumerate(pairwise(sigmas)):
            image = x - sigma * derivative(i, x)
            if lower == 0:
                return image
            # Log ratios of signal and noise; at σ = 1 of a flow there is no signal, and the step is of first order.
            length = math.log(signal(lower) / lower * sigma / max(signal(sigma), 1e-6))
            blend = image
            if before is not None and math.isfinite(last_length):
                share = length / (2 * last_length)
                blend = (1 + share) * image - share * before
            x = lower / sigma * x + (signal(lower) - signal(sigma) * lower / sigma) * blend
            before, last_length = image, length if signal(sigma) > 1e-6 else math.inf
        return x

    return solve


def of_diffusers(scheduler: type[Any], signal: Callable[[float], float]) -> Solver:
    """One of diffusers' multistep schedulers, of second order: UniPCMultistepScheduler, DEISMultistepScheduler.

    A scheduler's x has the picture at α and the noise at σ, α² + σ² = 1 unless it is a flow's; ours of noise prediction
    is that over α. Levels at which its logarithm has no end, no picture and no noise, are put just beside.
    """
    def solve(derivative: Derivative, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        flow = signal(sigmas[0]) != 1.0
        steps = scheduler(
            solver_order=2, use_flow_sigmas=flow, prediction_type="flow_prediction" if flow else "epsilon",
            lower_order_final=True)
        steps.set_timesteps(len(sigmas) - 1)
        steps.sigmas = torch.tensor(sigmas, dtype=torch.float64).clamp(1e-6, 1 - 1e-6 if flow else None)
        steps.timesteps = torch.arange(len(sigmas) - 1)
        steps.set_begin_index(0)

        def scale(sigma: float) -> float:
            return 1.0 if flow else math.hypot(1.0, sigma)
        x = x.double()
        for i, (sigma, lower) in enumerate(pairwise(sigmas)):
            v = derivative(i, x.float()).double()
            x = scale(lower) * steps.step(v, steps.timesteps[i], x / scale(sigma), return_dict=False)[0]
        return x.float()

    return solve


def ancestral(signal: Callable[[float], float], seed: int, renewed: float | None = None) -> Solver:
    """Euler with part of the noise drawn anew at every step: the share `renewed` of its variance, or as much as
    k-diffusion's "euler_ancestral" renews at η = 1 (which is DDPM's sampler). `signal` (σ) is the image's factor in x;
    the new noise depends on `seed` and step alone."""
    def solve(derivative: Derivative, x: Tensor, sigmas: Sequence[float]) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        for i, (sigma, lower) in enumerate(pairwise(sigmas)):
            fresh = torch.randn(x.shape, generator=generator)
            image = x - sigma * derivative(i, x)
            if lower == 0:
                return image
            noise = (x - signal(sigma) * image) / sigma
            ratio = lower * signal(sigma) / (sigma * signal(lower))  # of noise to signal, after to before
            kept = ratio if renewed is None else math.sqrt(1 - renewed)
            x = signal(lower) * image + lower * (kept * noise + math.sqrt(1 - kept**2) * fresh)
        return x

    return solve
