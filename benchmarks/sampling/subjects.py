"""The small models that the benchmarks sample: one interface for the tiny Flux and the tiny DiT, without ComfyUI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.pack.families.early_image.dit import FAMILY as DIT_FAMILY
from benchmarks.pack.families.flux_kin.flux import FAMILY as FLUX_FAMILY
from benchmarks.pack.sites.base import hooked
from torch import Tensor, nn

from benchmarks.models import tiny_dit, tiny_flux

Options = dict[str, Any]
"""ComfyUI's transformer_options."""


@dataclass(frozen=True)
class Job:
    """What to draw: prompts ("red house day"), the seed of the noise, the strength of guidance.

    Several seeds share the prompts out evenly: so many batches in one.
    """

    prompts: tuple[str, ...]
    seed: int | tuple[int, ...] = 0
    guidance: float = 2.5

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    @property
    def samples(self) -> int:
        """Pictures of each seed."""
        return len(self.prompts) // len(self.seeds)


@dataclass(frozen=True)
class Level:
    """A point of the sampling schedule: the noise level, and what the network is told of it."""

    sigma: float
    time: float


class Subject(ABC):
    """A model whose image obeys dx/dσ = v(x, σ); the image at σ = 0 is the result."""

    name: str
    preset: str  # of its family, in femo_core.presets
    model: nn.Module
    family: Any
    streams: tuple[str, ...]  # of the batch, as chunks
    shape: tuple[int, int, int]  # of a sample
    warmup: int  # the papers'

    @abstractmethod
    def levels(self, steps: int) -> list[Level]:
        """Of a run of so many steps, one each; after the last σ is 0."""

    @abstractmethod
    def signal(self, sigma: float) -> float:
        """The image's factor in x at noise level σ."""

    @abstractmethod
    def start(self, job: Job, level: Level) -> Tensor:
        """Pure noise at the first level."""

    @abstractmethod
    def derivative(self, job: Job, x: Tensor, level: Level, options: Options) -> Tensor:
        """v(x, σ), guided: one call of the network on all streams."""

    @abstractmethod
    def pixels(self, result: Tensor) -> Tensor:
        """(B, 3, H, W) in −1 … 1 of what the sampler returns."""

    def drawing(self, pixels: Tensor) -> Tensor:
        """A drawing (B, 3, 64, 64) at the size that this model draws."""
        return pixels

    def image(self, pixels: Tensor) -> Tensor:
        """What the sampler would have returned for a drawing: the model's data."""
        return self.drawing(pixels)


class TinyFlux(Subject):
    """Rectified flow, timestep shift 3.16, guidance by embedding."""

    name, preset, family, streams, warmup = "tiny Flux", "FLUX", FLUX_FAMILY, ("prompt",), 3
    shape = tiny_flux.LATENT_SHAPE

    def __init__(self, folder: Path = tiny_flux.CHECKPOINTS) -> None:
        self.model = tiny_flux.load_tiny_flux(folder / "tiny_flux.safetensors")
        self.codec = tiny_flux.Codec.load(folder / "tiny_flux_codec.safetensors")

    def levels(self, steps: int) -> list[Level]:
        return [Level(sigma, sigma) for sigma in tiny_flux.shifted_sigmas(steps)[:-1]]

    def signal(self, sigma: float) -> float:
        return 1 - sigma

    def start(self, job: Job, level: Level) -> Tensor:
        return level.sigma * normal(job, self.shape)

    def derivative(self, job: Job, x: Tensor, level: Level, options: Options) -> Tensor:
        times, guidance = torch.full((len(x),), level.time), torch.full((len(x),), job.guidance)
        return self.model(x, times, tiny_flux.encode_prompts(list(job.prompts)), guidance, options)

    def pixels(self, result: Tensor) -> Tensor:
        return self.codec.decode(tiny_flux.to_latent(result))

    def image(self, pixels: Tensor) -> Tensor:
        return tiny_flux.from_latent(self.codec.encode(pixels))


class TinyDiT(Subject):
    """Noise prediction on linear β, guidance by a second, unconditional stream; x is the image plus σ · noise."""

    name, preset, family, streams, warmup = "tiny DiT", "DiT", DIT_FAMILY, ("class", "null class"), 2
    shape = (3, tiny_dit.SIZE, tiny_dit.SIZE)

    def __init__(self, folder: Path = tiny_flux.CHECKPOINTS) -> None:
        self.model = tiny_dit.load_tiny_dit(folder / tiny_dit.CHECKPOINT.name)

    def levels(self, steps: int) -> list[Level]:
        timesteps = tiny_dit.ddim_timesteps(steps)
        return [Level(*pair) for pair in zip(tiny_dit.sigmas_of(timesteps), timesteps.tolist(), strict=False)]

    def signal(self, sigma: float) -> float:
        return 1.0

    def start(self, job: Job, level: Level) -> Tensor:
        return (1 + level.sigma**2) ** 0.5 * normal(job, self.shape)

    def derivative(self, job: Job, x: Tensor, level: Level, options: Options) -> Tensor:
        labels = tiny_dit.classes_of(job.prompts)
        both = torch.cat((labels, torch.full_like(labels, tiny_dit.NULL_CLASS)))
        scaled = torch.cat((x, x)) / (1 + level.sigma**2) ** 0.5
        noise = self.model(scaled, torch.full((2 * len(x),), level.time), both, options)[:, :3]
        guided, plain = noise.chunk(2)
        return plain + job.guidance * (guided - plain)

    def pixels(self, result: Tensor) -> Tensor:
        return result.clamp(-1, 1)

    def drawing(self, pixels: Tensor) -> Tensor:
        return tiny_dit.half_size(pixels)


@contextmanager
def runs_of(module: nn.Module) -> Iterator[list[int]]:
    """One entry for each time that the module runs while it is open."""
    runs: list[int] = []
    with hooked(module.register_forward_hook(lambda *_: runs.append(1))):
        yield runs


def normal(job: Job, shape: tuple[int, ...]) -> Tensor:
    """The job's noise."""
    return torch.cat([
        torch.randn(job.samples, *shape, generator=torch.Generator().manual_seed(seed)) for seed in job.seeds])
