"""The small models at noise levels that make them behave like large ones: what a regime is.

A timestep shift s multiplies σ / (1 − σ), the ratio of noise to picture, at every step of a run but its two ends. The
shift of 3 that FLUX is sampled at is made for 4,096 tokens: what decides the layout, the mean of many tokens, is
drowned by noise only at far higher levels there than in a picture of 64. At smaller shifts more of a small model's
steps lie where it decides. For noise prediction the same knob is a factor to σ = √((1 − ᾱ) / ᾱ), which is that ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.models import tiny_dit, tiny_flux
from benchmarks.sampling.subjects import Job, Level, Options, Subject, TinyDiT, TinyFlux


class Scenes(TinyFlux):
    """The scenes' model: rectified flow without guidance, the prompt leaves the layout open."""

    name = "scenes"

    def __init__(self, folder: Path = tiny_flux.CHECKPOINTS) -> None:
        self.model = tiny_flux.load_tiny_flux(folder / "tiny_scenes.safetensors")
        self.codec = tiny_flux.Codec.load(folder / "tiny_scenes_codec.safetensors")

    def derivative(self, job: Job, x: Tensor, level: Level, options: Options) -> Tensor:
        prompts = tuple(" ".join(prompt.split()[:2]) for prompt in job.prompts)  # its grounds have no name
        return super().derivative(replace(job, prompts=prompts), x, level, options)


@dataclass(frozen=True)
class Regime:
    """A model and the shift that it is sampled at; of the DiT relative to its own levels."""

    model: str
    shift: float

    @property
    def name(self) -> str:
        return f"{self.model}, shift {self.shift:g}"

    def levels(self, subject: Subject, steps: int) -> list[Level]:
        """Of a run of so many steps, one each; after the last σ is 0."""
        if isinstance(subject, TinyFlux):
            return [Level(sigma, sigma) for sigma in tiny_flux.shifted_sigmas(steps, math.log(self.shift))[:-1]]
        own = subject.levels(steps)
        sigmas = [own[0].sigma, *(self.shift * level.sigma for level in own[1:])]
        return [Level(sigma, time) for sigma, time in zip(sigmas, dit_times(sigmas), strict=True)]


def dit_times(sigmas: list[float]) -> list[float]:
    """Timesteps of noise levels, fractions included: the training levels, interpolated over log σ."""
    table = ((1 - tiny_dit.SIGNAL) / tiny_dit.SIGNAL).sqrt().log()
    wanted = torch.tensor(sigmas, dtype=torch.float64).log()
    above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    share = ((wanted - table[above - 1]) / (table[above] - table[above - 1])).clamp(0, 1)
    return (above - 1 + share).tolist()


MODELS: dict[str, Callable[[], Subject]] = {"scenes": Scenes, "tiny Flux": TinyFlux, "tiny DiT": TinyDiT}
SHIFTS = {"scenes": (3.16, 1, 0.5, 0.25, 0.1), "tiny Flux": (3.16, 1, 0.5, 0.25, 0.1), "tiny DiT": (1, 0.3, 0.1, 0.03)}
REGIMES = tuple(Regime(model, shift) for model, shifts in SHIFTS.items() for shift in shifts)
