"""Sampling the standalone tiny Flux with its hidden state forecast: femo_core on a host of twenty lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from flux_model import Flux
from tiny_flux import LATENT_SHAPE, encode_prompts, sample_euler, shifted_sigmas, to_latent
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from femo_core import ForecastSession, RunReport, Schedule
from femo_core.predictor import AbstractPredictor

STREAM, SITE = "prompt", "hidden"


@dataclass(frozen=True)
class Job:
    """What to draw: prompts, seed, guidance (of the guidance embedding)."""

    prompts: tuple[str, ...]
    seed: int = 0
    guidance: float = 2.5

    @property
    def noise(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(len(self.prompts), *LATENT_SHAPE, generator=generator)


def sample(model: Flux, job: Job, steps: int, predictor: AbstractPredictor, schedule: Schedule,
           on_step: Callable[[int], None] | None = None) -> tuple[Tensor, RunReport]:
    """Latents (B, 16, 16, 16) in the autoencoder's space, after `steps` Euler steps, and what the run did.

    Schedule(interval=1) is the unaccelerated model.
    """
    session = ForecastSession(schedule, predictor, steps)
    context = encode_prompts(list(job.prompts))
    guidance = torch.full((len(job.prompts),), job.guidance)

    def velocity(step: int, x: Tensor, sigma: float) -> Tensor:
        vec = model.condition(torch.full((len(x),), sigma), guidance)
        session.begin_step(step)
        saved = session.begin_call([STREAM], [SITE])
        if saved:
            hidden = session.forecast(STREAM, SITE)
        else:
            hidden = model.trunk(x, vec, context)
            session.record(STREAM, {SITE: hidden})
        session.count_run(saved)
        return model.head(hidden, vec, (x.shape[2], x.shape[3]))

    with torch.inference_mode():
        started = time.perf_counter()
        x = sample_euler(velocity, job.noise, shifted_sigmas(steps), on_step)
        seconds = time.perf_counter() - started
    report = session.report(seconds)
    session.close()
    return to_latent(x), report


def count_flops(model: Flux, job: Job) -> tuple[int, int]:
    """Counted FLOPs of a full and of a predicted step (its matrix products; the forecast itself has none)."""
    x, context = job.noise, encode_prompts(list(job.prompts))
    ones = torch.ones(len(x))
    with torch.inference_mode(), FlopCounterMode(display=False) as full:
        model(x, ones, context, ones)
    hidden = torch.zeros(len(x), x.shape[2] * x.shape[3] // 4, model.config.hidden)
    with torch.inference_mode(), FlopCounterMode(display=False) as predicted:
        model.head(hidden, model.condition(ones, ones), (x.shape[2], x.shape[3]))
    return full.get_total_flops(), predicted.get_total_flops()
