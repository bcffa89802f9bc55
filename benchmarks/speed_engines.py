"""A Flux of random weights standalone, in ComfyUI and in diffusers: each tells how long its steps took."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flux_model import Flux, FluxConfig
from forecasting import sample
from hosted import Hosted
from pack.families.flux import FAMILY
from solvers import euler
from subjects import Job, Level, Options, Subject, runs_of
from tiny_flux import shifted_sigmas
from torch import Tensor

from femo_core import Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor


@dataclass(frozen=True)
class Size:
    """Of a network, and of what it draws."""

    name: str
    config: FluxConfig
    side: int  # of the latent; a token is 2 × 2
    text: int  # tokens
    batch: int = 1

    @property
    def tokens(self) -> int:
        return self.text + (self.side // 2) ** 2


@dataclass(frozen=True)
class Steps:
    """Of one run: how long each took, and whether the blocks ran."""

    seconds: tuple[float, ...]
    ran: tuple[bool, ...]
    cache_bytes: int = 0  # that the cache says it held; 0: it does not say

    def of(self, ran: bool) -> list[float]:
        """The first step apart, which records nothing and on which there is much to set up."""
        return [seconds for seconds, did in zip(self.seconds[1:], self.ran[1:], strict=True) if did == ran]


class RandomFlux(Subject):
    """Weights drawn anew, the same for each size: what it draws is noise, how long it takes is not."""

    name, preset, family, streams, warmup = "Flux", "FLUX", FAMILY, ("prompt",), 3

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype):
        self.size, self.device, self.dtype = size, device, dtype
        self.shape = (size.config.latent_channels, size.side, size.side)
        with torch.device("meta"):
            model = Flux(size.config).to(dtype)
        self.model = model.to_empty(device=device).eval().requires_grad_(False)
        generator = torch.Generator(device).manual_seed(0)
        for name, weights in self.model.named_parameters():
            if name.endswith("norm.scale"):
                weights.fill_(1.0)
            else:
                weights.normal_(0.0, 0.02, generator=generator)
        draw = torch.Generator(device).manual_seed(1)
        self.context = torch.randn(
            size.batch, size.text, size.config.context_dim, generator=draw, device=device, dtype=dtype)

    def levels(self, steps: int) -> list[Level]:
        return [Level(sigma, sigma) for sigma in shifted_sigmas(steps)[:-1]]

    def signal(self, sigma: float) -> float:
        return 1 - sigma

    def start(self, job: Job, level: Level) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(2)
        return torch.randn(self.size.batch, *self.shape, generator=generator, device=self.device, dtype=self.dtype)

    def derivative(self, job: Job, x: Tensor, level: Level, options: Options) -> Tensor:
        times = x.new_full((len(x),), level.time)
        return self.model(x, times, self.context, x.new_full((len(x),), job.guidance), options)

    def pixels(self, result: Tensor) -> Tensor:
        return result


class StepTimer:
    """`step` at the end of each; what a GPU has been given to do is waited for."""

    def __init__(self, device: torch.device, runs: list[int]):
        self.device, self.runs = device, runs
        self.seconds: list[float] = []
        self.ran: list[bool] = []
        self._at, self._runs = self._now(), 0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self) -> None:
        now = self._now()
        self.seconds.append(now - self._at)
        self.ran.append(len(self.runs) > self._runs)
        self._at, self._runs = now, len(self.runs)


@dataclass(frozen=True)
class Cache:
    """Ours, as it is set."""

    predictor: AbstractPredictor
    schedule: Schedule
    site: str


class Engine(ABC):
    name: str

    @abstractmethod
    def run(self, steps: int, cache: Any = None) -> Steps:
        """A run with a cache of this engine's, or without."""


class Standalone(Engine):
    """femo_core and the pack's sites, without ComfyUI."""

    name = "standalone"

    def __init__(self, flux: RandomFlux):
        self.flux = flux

    def run(self, steps: int, cache: Cache | None = None) -> Steps:
        cache = cache or Cache(TaylorSeer(0), Schedule(1), "hidden")
        with runs_of(self.flux.model.single_blocks[0].linear1) as runs:
            timer = StepTimer(self.flux.device, runs)
            _, report = sample(self.flux, Job(("",)), steps, cache.predictor, cache.schedule, site=cache.site,
                               on_step=lambda _: timer.step())
        return Steps(tuple(timer.seconds), tuple(timer.ran), report.cache_bytes)


class InDiffusers(Engine):
    """`cache` opens one of diffusers' own caches, or cache-dit's, on `transformer`."""

    name = "diffusers"

    def __init__(self, flux: RandomFlux):
        from rivals import in_diffusers

        self.flux, self.transformer = flux, in_diffusers(flux.model)

    def run(self, steps: int, cache: Callable[[], AbstractContextManager[None]] | None = None) -> Steps:
        from rivals import diffusers_velocity

        flux, levels, guidance = self.flux, self.flux.levels(steps), self.flux.context.new_full((1,), 2.5)
        guidance = guidance.expand(flux.size.batch)
        last = self.transformer.single_transformer_blocks[-1].attn.to_q

        def velocity(step: int, x: Tensor) -> Tensor:
            times = x.new_full((len(x),), levels[step].time)
            v = diffusers_velocity(self.transformer, x, times, flux.context, guidance)
            timer.step()
            return v

        with (cache or nullcontext)(), runs_of(last) as runs, torch.inference_mode():
            timer = StepTimer(flux.device, runs)
            euler(velocity, flux.start(Job(("",)), levels[0]), [*(level.sigma for level in levels), 0.0])
        return Steps(tuple(timer.seconds), tuple(timer.ran))


class InComfyUI(Engine, Hosted):
    """`cache` is ours, or ("EasyCache", threshold)."""

    name = "ComfyUI"

    def __init__(self, flux: RandomFlux, host: Path):
        Hosted.__init__(self, flux, host)
        self.scheduler = "simple"

    def load(self, host: Path) -> Any:
        import comfy.sd

        flux: Any = self.subject
        return comfy.sd.load_diffusion_model_state_dict(flux.model.state_dict(), model_options={"dtype": flux.dtype})

    def run(self, steps: int, cache: Cache | tuple[str, float] | None = None) -> Steps:
        flux: Any = self.subject
        model = self.model
        if isinstance(cache, Cache):
            model = self.cached(cache.predictor, cache.schedule, cache.site)
        elif cache:
            model = self.rival(*cache)
        conditioning = [[flux.context[:1].float().cpu(), {
            "pooled_output": torch.zeros(1, flux.size.config.pooled_dim), "guidance": 2.5}]]
        noise = flux.start(Job(("",)), flux.levels(1)[0]).float().cpu()
        with runs_of(model.model.diffusion_model.single_blocks[0].linear1) as runs, torch.inference_mode():
            timer = StepTimer(flux.device, runs)
            self.comfy.sample.sample(
                model, noise, steps, 1.0, "euler", self.scheduler, conditioning, conditioning, torch.zeros_like(noise),
                disable_pbar=True, seed=0, callback=lambda *_: timer.step())
        report = self.last_report(model) if isinstance(cache, Cache) else None
        return Steps(tuple(timer.seconds), tuple(timer.ran), report.cache_bytes if report else 0)
