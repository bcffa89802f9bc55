"""A Flux of random weights standalone, in ComfyUI and in diffusers: each tells how long its steps took."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.pack.families.flux_kin.flux import FAMILY
from torch import Tensor

from benchmarks.engines.hosted import Hosted
from benchmarks.models.flux_model import Flux, FluxConfig
from benchmarks.models.tiny_flux import shifted_sigmas
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.solvers import euler
from benchmarks.sampling.subjects import Job, Level, Options, Subject, runs_of
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
    """Of one run: how long each took, whether the blocks ran, and how long a step without a cache took beside it."""

    seconds: tuple[float, ...]
    ran: tuple[bool, ...]
    plain: tuple[float, ...] = ()  # empty where none was run
    cache_bytes: int = 0  # that the cache says it held; 0: it does not say

    def relative(self, ran: bool) -> list[float]:
        """To the step without a cache that was run beside each, so that a machine that slows down slows both.

        The first step is left out: it records nothing, and there is much to set up.
        """
        steps = zip(self.seconds[1:], self.plain[1:], self.ran[1:], strict=True)
        return [seconds / plain for seconds, plain, did in steps if did == ran]


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
    """`step` at the end of each; what a GPU has been given to do is waited for.

    plain: runs the network once without a cache. It is timed after each step at which the blocks ran.
    """

    def __init__(self, device: torch.device, runs: list[int], plain: Callable[[], object] | None = None):
        self.device, self.runs, self.plain = device, runs, plain
        self._seconds: list[float] = []
        self._ran: list[bool] = []
        self._plain: list[float] = []
        self._at, self._runs = self._now(), 0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self) -> None:
        now = self._now()
        self._seconds.append(now - self._at)
        self._ran.append(len(self.runs) > self._runs)
        if self.plain and self._ran[-1]:
            self.plain()
            self._plain.append(self._now() - now)
        elif self.plain:
            self._plain.append(self._plain[-1])
        self._at, self._runs = self._now(), len(self.runs)

    def steps(self, cache_bytes: int = 0) -> Steps:
        return Steps(tuple(self._seconds), tuple(self._ran), tuple(self._plain), cache_bytes)


@dataclass(frozen=True)
class Cache:
    """Ours, as it is set."""

    predictor: AbstractPredictor
    schedule: Schedule
    site: str


class Engine(ABC):
    name: str

    @abstractmethod
    def run(self, steps: int, cache: Any = None, beside_plain: bool = False) -> Steps:
        """A run with a cache of this engine's, or without. beside_plain: with steps without one in between, timed."""


class Standalone(Engine):
    """femo_core and the pack's sites, without ComfyUI."""

    name = "standalone"

    def __init__(self, flux: RandomFlux):
        self.flux = flux

    def run(self, steps: int, cache: Cache | None = None, beside_plain: bool = False) -> Steps:
        cache = cache or Cache(TaylorSeer(0), Schedule(1), "hidden")
        flux, job = self.flux, Job(("",))
        level = flux.levels(1)[0]
        plain = partial(flux.derivative, job, flux.start(job, level), level, {}) if beside_plain else None
        with runs_of(flux.model.single_blocks[0].linear1) as runs:
            timer = StepTimer(flux.device, runs, plain)
            _, report = sample(flux, job, steps, cache.predictor, cache.schedule, site=cache.site,
                               on_step=lambda _: timer.step())
        return timer.steps(report.cache_bytes)


class InDiffusers(Engine):
    """`cache` opens one of diffusers' own caches, or cache-dit's, on `transformer`."""

    name = "diffusers"

    def __init__(self, flux: RandomFlux):
        from benchmarks.rivals.caches import in_diffusers

        self.flux = flux
        self.transformer, self.uncached = in_diffusers(flux.model), in_diffusers(flux.model)

    def run(self, steps: int, cache: Callable[[], AbstractContextManager[None]] | None = None,
            beside_plain: bool = False) -> Steps:
        flux, levels = self.flux, self.flux.levels(steps)
        start = flux.start(Job(("",)), levels[0])

        def velocity(step: int, x: Tensor) -> Tensor:
            v = self._velocity(self.transformer, x, levels[step])
            timer.step()
            return v

        last = self.transformer.single_transformer_blocks[-1].attn.to_q
        plain = partial(self._velocity, self.uncached, start, levels[0]) if beside_plain else None
        with (cache or nullcontext)(), runs_of(last) as runs, torch.inference_mode():
            timer = StepTimer(flux.device, runs, plain)
            euler(velocity, start, [*(level.sigma for level in levels), 0.0])
        return timer.steps()

    def _velocity(self, transformer: Any, x: Tensor, level: Level) -> Tensor:
        from benchmarks.rivals.caches import diffusers_velocity

        guidance = self.flux.context.new_full((self.flux.size.batch,), 2.5)
        return diffusers_velocity(transformer, x, x.new_full((len(x),), level.time), self.flux.context, guidance)


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

    def run(self, steps: int, cache: Cache | tuple[str, float] | None = None, beside_plain: bool = False) -> Steps:
        from comfy.patcher_extension import WrappersMP

        flux: Any = self.subject
        model = self.model.clone()
        if isinstance(cache, Cache):
            model = self.cached(cache.predictor, cache.schedule, cache.site)
        elif cache:
            model = self.rival(*cache)
        asked: list[Any] = []  # the guider, and what it was asked for last

        def watch(executor: Any, x: Tensor, timestep: Tensor, *rest: Any) -> Tensor:
            asked[:] = executor.class_obj, x, timestep
            return executor(x, timestep, *rest)

        def plain() -> Tensor:
            guider, x, timestep = asked
            return guider.predict_noise(x, timestep, self.model.model_options)

        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "watch", watch)
        conditioning = [[flux.context[:1].float().cpu(), {
            "pooled_output": torch.zeros(1, flux.size.config.pooled_dim), "guidance": 2.5}]]
        noise = flux.start(Job(("",)), flux.levels(1)[0]).float().cpu()
        with runs_of(model.model.diffusion_model.single_blocks[0].linear1) as runs, torch.inference_mode():
            timer = StepTimer(flux.device, runs, plain if beside_plain else None)
            self.comfy.sample.sample(
                model, noise, steps, 1.0, "euler", self.scheduler, conditioning, conditioning, torch.zeros_like(noise),
                disable_pbar=True, seed=0, callback=lambda *_: timer.step())
        report = self.last_report(model) if isinstance(cache, Cache) else None
        return timer.steps(report.cache_bytes if report else 0)
