"""The only patching of ComfyUI: a cloned model gets wrappers, and each sampling run a session of its own.

Life cycle: the clone carries nothing but an immutable CacheConfig inside its wrappers. OUTER_SAMPLE makes a _Run, puts
it into this run's transformer_options, and frees it in `finally`. PREDICT_NOISE tells it the step, CALC_COND_BATCH
counts its calls, APPLY_MODEL records or forecasts. The shared model is patched only inside a `with` of a site.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..femo_core import ForecastSession, Schedule
from ..femo_core.predictor import AbstractPredictor
from .families import Family, families, find_family
from .reporting import log, publish
from .sites import SITES
from .steps import StepClock

KEY = "femo"


@dataclass(frozen=True)
class CacheConfig:
    """What a cache node asks for."""

    predictor: AbstractPredictor
    schedule: Schedule
    site: str = "hidden"
    enabled: bool = True
    node: str = "FeMo Cache"
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"site must be one of {', '.join(SITES)}; got {self.site!r}")


def attach(model: Any, config: CacheConfig) -> Any:
    """A clone of a ModelPatcher that samples with `config`; the model itself where it is not enabled.

    A model that has a cache of this pack gets the new one instead.
    """
    if not config.enabled:
        return model
    model = model.clone()
    wrappers = _Wrappers(config)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, wrappers.outer_sample),
        (WrappersMP.PREDICT_NOISE, _predict_noise),
        (WrappersMP.CALC_COND_BATCH, _calc_cond_batch),
        (WrappersMP.APPLY_MODEL, _apply_model),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


@dataclass(frozen=True)
class _Wrappers:
    config: CacheConfig

    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        guider, config = executor.class_obj, self.config
        started = time.perf_counter()
        family = find_family(getattr(guider.model_patcher.model, "diffusion_model", None))
        obstacle = _obstacle(guider.model_options, family)
        clock = StepClock(sigmas.tolist())
        session = ForecastSession(config.schedule, config.predictor, clock.total_steps)
        run = _Run(config, family, session, clock, obstacle)
        if obstacle:
            run.warn(f"this run is not accelerated: {obstacle}")
        options = guider.model_options
        guider.model_options = comfy.model_patcher.create_model_options_clone(options)
        guider.model_options.setdefault("transformer_options", {})[KEY] = run
        try:
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            run.publish(time.perf_counter() - started)
            return result
        finally:
            guider.model_options = options
            run.session.close()


def _obstacle(model_options: dict[str, Any], family: Family | None) -> str:
    """Why this run can't be accelerated, or ""."""
    transformer_options = model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        return "the model also has EasyCache or LazyCache on it, and only one cache can work; remove one of the two"
    if "model_function_wrapper" in model_options:
        return (
            "another node (TeaCache, WaveSpeed or the like) has set a model function wrapper, which may skip steps "
            "itself; remove one of the two")
    if "torch_compile_kwargs" in model_options:
        return "the model is compiled with torch.compile, inside which features can't be recorded; remove that node"
    if family is None:
        known = ", ".join(family.name for family in families())
        return f"this kind of model is not known yet (known: {known})"
    return ""


class _Run:
    """One sampling run. An instance, because ComfyUI merges dicts of transformer_options anew on every call."""

    def __init__(self, config: CacheConfig, family: Family | None, session: ForecastSession, clock: StepClock,
                 obstacle: str):
        self.config, self.family, self.session, self.clock, self.obstacle = config, family, session, clock, obstacle
        self.calls = 0  # of CALC_COND_BATCH in this evaluation
        self._logged: set[str] = set()

    def begin_evaluation(self, timestep: Tensor) -> None:
        self.calls = 0
        self.session.begin_step(self.clock.step(float(timestep.max()) if self.clock.needs_sigma else 0.0))

    def apply(self, executor: Any, x: Tensor, options: dict[str, Any], call: Any) -> Any:
        """`call(transformer_options)` goes on to the network, with its features forecast or recorded."""
        session, family = self.session, self.family
        streams = _streams(x, options, self.calls)
        if self.obstacle or family is None or not streams:
            session.count_run(saved=False)
            return call(options)

        model, site = executor.class_obj.diffusion_model, SITES[self.config.site]
        names = site.features(model, family)
        if all(session.can_forecast(stream, names) for stream in streams):
            with site.substituting(model, family, options, lambda name: self._forecast(streams, name)) as substituted:
                result = call(substituted)
            session.count_run(saved=True)
            return result

        wanted = [stream for stream in streams if session.wants_features(stream)]
        captured: dict[str, Tensor] = {}
        if wanted:
            with site.recording(model, family, captured):
                result = call(options)
            self._record(streams, wanted, names, captured)
        else:
            result = call(options)
        session.count_run(saved=False)
        return result

    def _forecast(self, streams: list[Hashable], name: str) -> Tensor:
        parts = [self.session.forecast(stream, name) for stream in streams]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _record(self, streams: list[Hashable], wanted: list[Hashable], names: tuple[str, ...],
                captured: dict[str, Tensor]) -> None:
        """Commits what a whole forward left, chunk by chunk. (An interrupted forward never comes here.)"""
        if set(captured) != set(names) or any(f.shape[0] % len(streams) for f in captured.values()):
            self.warn("the network ran in an unexpected way (replaced modules?), so its features were not recorded")
            return
        chunks = {name: feature.chunk(len(streams)) for name, feature in captured.items()}
        for i, stream in enumerate(streams):
            if stream in wanted:
                self.session.record(stream, {name: parts[i] for name, parts in chunks.items()})

    def warn(self, message: str) -> None:
        self.session.warn(message)
        self._log_once(message)

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            log.warning("%s: %s", self.config.node, message)

    def publish(self, seconds: float) -> None:
        settings = {"site": self.config.site, "model": self.family.name if self.family else "unknown"}
        report = self.session.report(seconds, self.obstacle, settings)
        for message in report.warnings:
            self._log_once(message)  # those of the session itself, known only now
        publish(report, self.config.node, self.config.node_id)


def _streams(x: Tensor, options: dict[str, Any], calls: int) -> list[Hashable]:
    """A key for each chunk of the batch; none if the host does not say what the rows are.

    A uuid alone is not unique: area prompts share it with their opposite, and perturbed-attention guidance calls again
    with the same one.
    """
    uuids, opposites = options.get("uuids"), options.get("cond_or_uncond")
    if not uuids or not opposites or len(uuids) != len(opposites) or x.shape[0] % len(uuids):
        return []
    window = getattr(options.get("context_window"), "index_list", None)
    shape = (x.shape[0] // len(uuids), *x.shape[1:])
    common = (str(x.device), calls, tuple(window) if window else None, shape, x.dtype)
    return [(uuid, opposite, *common) for uuid, opposite in zip(uuids, opposites, strict=True)]


def _run_of(options: dict[str, Any] | None) -> _Run | None:
    return (options or {}).get(KEY)


def _predict_noise(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any,
                   **kwargs: Any) -> Any:
    run = _run_of(model_options.get("transformer_options"))
    if run is not None:
        run.begin_evaluation(timestep)
    return executor(x, timestep, model_options, *args, **kwargs)


def _calc_cond_batch(executor: Any, model: nn.Module, conds: Any, x: Tensor, timestep: Tensor,
                     model_options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    run = _run_of(model_options.get("transformer_options"))
    if run is not None:
        run.calls += 1
    return executor(model, conds, x, timestep, model_options, *args, **kwargs)


def _apply_model(executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
                 control: Any = None, transformer_options: dict[str, Any] | None = None, *args: Any,
                 **kwargs: Any) -> Any:
    options = transformer_options or {}

    def call(options: dict[str, Any]) -> Any:
        return executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)

    run = _run_of(options)
    return call(options) if run is None else run.apply(executor, x, options, call)
