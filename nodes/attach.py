"""The only patching of ComfyUI: a cloned model gets wrappers, and each sampling run a session of its own.

Life cycle: the clone carries nothing but an immutable CacheConfig inside its wrappers. OUTER_SAMPLE makes a _Run, puts
it into this run's transformer_options, and frees it in `finally`. PREDICT_NOISE tells it the step, CALC_COND_BATCH
counts its calls, APPLY_MODEL records or forecasts. The shared model is patched only inside a `with` of a site.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..femo_core import ForecastSession, Schedule
from ..femo_core.predictor import AbstractPredictor
from .families import families, find_family
from .reporting import log, publish
from .sites import SITES, watching_blocks
from .steps import StepClock

KEY = "femo"


@dataclass(frozen=True)
class CacheConfig:
    """What a cache node asks for."""

    predictor: AbstractPredictor
    schedule: Schedule
    site: str = "hidden"
    node: str = "FeMo Cache"
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"site must be one of {', '.join(SITES)}; got {self.site!r}")


def attach(model: Any, config: CacheConfig) -> Any:
    """A clone of a ModelPatcher that samples with `config`. A cache of this pack that is on it already is replaced."""
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
        obstacle = _obstacle(guider.model_options, getattr(guider.model_patcher.model, "diffusion_model", None))
        clock = StepClock(sigmas.tolist())
        session = ForecastSession(config.schedule, config.predictor, clock.total_steps)
        run = _Run(config, session, clock, obstacle)
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


def _obstacle(model_options: dict[str, Any], diffusion_model: nn.Module | None) -> str:
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
    if find_family(diffusion_model) is None:
        known = ", ".join(family.name for family in families())
        return f"this kind of model is not known yet (known: {known})"
    return ""


class _Run:
    """One sampling run. An instance, because ComfyUI merges dicts of transformer_options anew on every call."""

    def __init__(self, config: CacheConfig, session: ForecastSession, clock: StepClock, obstacle: str):
        self.config, self.session, self.clock, self.obstacle = config, session, clock, obstacle
        self.family = ""  # name of the model's, once seen
        self.lock = threading.Lock()  # a host that splits its work over several GPUs calls from several threads
        self.calls = 0  # of CALC_COND_BATCH in this evaluation
        self.seen: Counter[Hashable] = Counter()  # keys of the chunks in this call of it
        self._logged: set[str] = set()

    def begin_evaluation(self, timestep: Tensor) -> None:
        self.calls = 0
        self.seen.clear()
        self.session.begin_step(self.clock.step(float(timestep.max())))

    def begin_call(self) -> None:
        self.calls += 1
        self.seen.clear()

    def apply(self, executor: Any, x: Tensor, options: dict[str, Any], changing: Hashable, call: Any) -> Any:
        """`call(transformer_options)` goes on to the network, with its features forecast or recorded.

        `changing` is what else may come and go between steps and makes a stream another one.
        """
        session, model, site = self.session, executor.class_obj.diffusion_model, SITES[self.config.site]
        with self.lock:
            family = find_family(model)
            streams = self._streams(x, options, changing)
            names = site.features(model, family) if family else ()
            usable = bool(streams) and family is not None and not self.obstacle
            forecast = usable and session.begin_call(streams, names)
            recordable = streams if usable and not forecast else []
            wanted = [stream for stream in recordable if session.wants_features(stream)]
        if family is not None:
            self.family = family.name

        ran: list[str] = []
        captured: dict[str, Tensor] = {}
        if forecast:
            with (watching_blocks(model, family, ran),
                  site.substituting(model, family, options, lambda name: self._forecast(streams, name)) as substituted):
                result = call(substituted)
        elif wanted:
            with site.recording(model, family, captured):
                result = call(options)
        else:
            result = call(options)

        with self.lock:
            if wanted:
                self._record(streams, wanted, names, captured)
            if ran:
                self.warn("blocks ran on a forecast step: another node keeps them from being skipped, nothing is saved")
            session.count_run(saved=forecast and not ran)
        return result

    def _streams(self, x: Tensor, options: dict[str, Any], changing: Hashable) -> list[Hashable]:
        """A key for each chunk of the batch; none if the host does not say what the rows are.

        A uuid alone is not unique: area prompts share it with their opposite, and perturbed-attention guidance calls
        again with the same one. What is alike all the same is told apart by its order. Blocks replaced by others (as
        skip-layer guidance does in one of its calls) make another stream.
        """
        uuids, opposites = options.get("uuids"), options.get("cond_or_uncond")
        if not uuids or not opposites or len(uuids) != len(opposites) or x.shape[0] % len(uuids):
            return []
        window = getattr(options.get("context_window"), "index_list", None)
        shape = (x.shape[0] // len(uuids), *x.shape[1:])
        replaced = frozenset(options.get("patches_replace", {}).get("dit", {}))
        common = (str(x.device), self.calls, tuple(window) if window else None, shape, x.dtype, replaced, changing)
        streams: list[Hashable] = []
        for uuid, opposite in zip(uuids, opposites, strict=True):
            key = (uuid, opposite, *common)
            streams.append((*key, self.seen[key]))
            self.seen[key] += 1
        return streams

    def _forecast(self, streams: list[Hashable], name: str) -> Tensor:
        with self.lock:
            parts = [self.session.forecast(stream, name) for stream in streams]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _record(self, streams: list[Hashable], wanted: list[Hashable], names: tuple[str, ...],
                captured: dict[str, Tensor]) -> None:
        """Commits what a whole forward left, chunk by chunk. (An interrupted forward never comes here.)"""
        if set(captured) != set(names) or any(f.shape[0] % len(streams) for f in captured.values()):
            self.warn("modules that another node skips or replaces did not run: their features can't be recorded")
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
        settings = {"site": self.config.site, "model": self.family or "unknown"}
        report = self.session.report(seconds, self.obstacle, settings)
        for message in report.warnings:
            self._log_once(message)  # those of the session itself, known only now
        publish(report, self.config.node, self.config.node_id)


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
        run.begin_call()
    return executor(model, conds, x, timestep, model_options, *args, **kwargs)


def _apply_model(executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
                 control: Any = None, transformer_options: dict[str, Any] | None = None, *args: Any,
                 **kwargs: Any) -> Any:
    options = transformer_options or {}

    def call(options: dict[str, Any]) -> Any:
        return executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)

    run = _run_of(options)
    if run is None:
        return call(options)
    return run.apply(executor, x, options, (_shape(c_concat), _shape(c_crossattn), _parts(control)), call)


def _shape(tensor: Any) -> Hashable:
    """Of one sample: how many go into one call may change, and makes no other stream."""
    return tuple(tensor.shape[1:]) if isinstance(tensor, Tensor) else None


def _parts(control: Any) -> Hashable:
    """Where a ControlNet adds something: one with a start or an end time comes and goes in mid-run."""
    if not isinstance(control, dict):
        return None
    return tuple(sorted((str(key), tuple(part is not None for part in parts)) for key, parts in control.items()))
