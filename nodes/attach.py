"""The only patching of ComfyUI: a cloned model gets wrappers, and each sampling run a session of its own.

Life cycle: the clone carries nothing but an immutable CacheConfig and the last run's report, plain data, inside its
wrappers. OUTER_SAMPLE makes a _Run, puts
it into this run's transformer_options, and frees it in `finally`. PREPARE_SAMPLING reserves memory, PREDICT_NOISE tells
the run its step, CALC_COND_BATCH counts its calls, APPLY_MODEL records or forecasts. The shared model is patched only
inside a `with`, of a site or while memory is reserved.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..femo_core import ForecastSession, RunReport, Schedule
from ..femo_core.error_control import check_tolerance
from ..femo_core.errors import check_integer
from ..femo_core.predictor import AbstractPredictor
from .calibration_file import NONE
from .control import DeferredControl, controls_of, with_deferred_controls
from .families import Family, find_family
from .full_steps import choose
from .memory import Room, expected_features
from .reporting import Channel, log
from .sites import FALLBACK, SITES, Embedders, Forecasts, watching_blocks
from .steps import StepClock, coordinates_of, interpolated

KEY = "femo"


@dataclass(frozen=True)
class CacheConfig:
    """What a cache node asks for."""

    predictor: AbstractPredictor
    schedule: Schedule
    site: str = "hidden"
    coordinate: Literal["steps", "sigmas"] = "steps"
    cache_device: Literal["gpu", "cpu"] = "gpu"
    calibration: str = NONE  # the name of its file
    budget: int = 0  # full steps that it is to choose; 0: as many as the schedule has
    tolerance: float = 0.0  # of the forecast error, without a calibration; 0: full steps are the schedule's
    node: str = "FeMo Cache"
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"site must be one of {', '.join(SITES)}; got {self.site!r}")
        if self.coordinate not in ("steps", "sigmas"):
            raise ValueError(f"coordinate must be steps or sigmas; got {self.coordinate!r}")
        if self.cache_device not in ("gpu", "cpu"):
            raise ValueError(f"cache_device must be gpu or cpu; got {self.cache_device!r}")
        check_integer("budget", self.budget, 0)
        check_tolerance(self.tolerance, self.schedule)


def attach(model: Any, config: CacheConfig) -> Any:
    """A clone of a ModelPatcher that samples with `config`. A cache of this pack that is on it already is replaced."""
    model = model.clone()
    wrappers = _Wrappers(config)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, wrappers.outer_sample),
        (WrappersMP.PREPARE_SAMPLING, _prepare_sampling),
        (WrappersMP.PREDICT_NOISE, _predict_noise),
        (WrappersMP.CALC_COND_BATCH, _calc_cond_batch),
        (WrappersMP.APPLY_MODEL, _apply_model),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def last_report(model: Any) -> RunReport | None:
    """What the last run of a patched model did. None before its first run."""
    wrappers = model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY)
    if not wrappers:
        return RunReport(reason="there is no cache on this model, or it is switched off")
    return wrappers[0].__self__.last.report


@dataclass
class _LastRun:
    report: RunReport | None = None


@dataclass(frozen=True)
class _Wrappers:
    config: CacheConfig
    last: _LastRun = field(default_factory=_LastRun, compare=False)

    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        run = _Run(self.config, sigmas, guider, kwargs.get("latent_shapes") or [noise.shape])
        options = guider.model_options
        guider.model_options = comfy.model_patcher.create_model_options_clone(options)
        transformer_options = guider.model_options.setdefault("transformer_options", {})
        transformer_options[KEY] = run
        _make_innermost(transformer_options)
        try:
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            self.last.report = run.publish()
            return result
        except BaseException:
            run.stopped()
            raise
        finally:
            guider.model_options = options
            run.session.close()


def _make_innermost(transformer_options: dict[str, Any]) -> None:
    """What other nodes do around the network happens on predicted steps too; and one that puts a compiled network in
    the network's place has done so."""
    wrappers = transformer_options["wrappers"][WrappersMP.APPLY_MODEL]
    transformer_options["wrappers"][WrappersMP.APPLY_MODEL] = {
        **{key: value for key, value in wrappers.items() if key != KEY}, KEY: wrappers[KEY]}


def _obstacle(model_options: dict[str, Any], network: nn.Module) -> str:
    """Why this run can't be accelerated, or ""."""
    transformer_options = model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        return "the model also has EasyCache or LazyCache on it, which skips steps itself; remove one of the two"
    if "model_function_wrapper" in model_options:
        return (
            "another node (TeaCache, WaveSpeed or the like) has set a model function wrapper, which may skip steps "
            "itself; remove one of the two")
    if hasattr(network, "init_kv_caches"):
        return "this model makes its video piece by piece and remembers what it saw, so that it has to run every time"
    return ""


def why_not_full(model_options: dict[str, Any], network: nn.Module) -> str:
    """Why a run that is under way may not run the network on every step, or ""."""
    run = _run_of(model_options.get("transformer_options"))
    if run is not None and not run.obstacle and run.session.forecasts:
        return f"{run.config.node} is on the same model and skips steps; switch it off for this run"
    return _obstacle(model_options, network)


def _choose_site(wanted: str, network: nn.Module, family: Family, model_options: dict[str, Any]) -> tuple[str, str]:
    """The wanted site, or the next one that this model has, and then why."""
    if "torch_compile_kwargs" in model_options and wanted != "output":
        return "output", "inside a model compiled with torch.compile features can't be recorded"
    site = _sites_from(wanted, network, family)[0]
    return site, "" if site == wanted else f"{family.name} is not known well enough for it"


def _sites_from(site: str, network: nn.Module, family: Family) -> list[str]:
    """The site, if the model has it, and those that may have to serve in its place; output is always one."""
    return [other for other in FALLBACK[FALLBACK.index(site):] if SITES[other].features(network, family)]


class _Run:
    """One sampling run. An instance, because ComfyUI merges dicts of transformer_options anew on every call."""

    def __init__(self, config: CacheConfig, sigmas: Tensor, guider: Any, shapes: Sequence[Sequence[int]]):
        self.config, self.guider, self.clock = config, guider, StepClock(sigmas.tolist())
        self.channel, self.started = Channel(config.node, config.node_id), time.perf_counter()
        self.shapes = shapes  # of the latents that are sampled together
        storage = torch.device("cpu") if config.cache_device == "cpu" else None
        self.room = Room(guider, storage or guider.model_patcher.load_device, config.predictor.buffer_count)
        self.full_steps = choose(config, guider.model_patcher.model, sigmas.tolist())
        self.session = ForecastSession(self.full_steps.schedule, config.predictor, self.clock.total_steps, storage,
                                       tolerance=self.full_steps.tolerance)
        self.network, model_options = guider.model_patcher.model.diffusion_model, guider.model_options
        self.family = find_family(self.network)
        self.coordinates: list[float] | None = None  # of the steps, where forecasts do not go by their number
        if config.coordinate == "sigmas":
            model_sampling = guider.model_patcher.get_model_object("model_sampling")
            self.coordinates = coordinates_of(model_sampling.timestep(sigmas[:-1]).tolist())
        self.sizes: dict[str, dict[Hashable, int]] = {}  # by site, of the features in the first evaluation, in bytes
        self.embedders: dict[tuple[Hashable, ...], Embedders] = {}  # by the streams of a call
        self.input_shape: tuple[int, ...] = ()
        self.measured = False  # they are known
        self.lock = threading.Lock()  # a host that splits its work over several GPUs calls from several threads
        self.calls = 0  # of CALC_COND_BATCH in this evaluation
        self.seen: Counter[Hashable] = Counter()  # keys of the chunks in this call of it
        self._logged: set[str] = set()
        self.obstacle = _obstacle(model_options, self.network)
        self.site, why = _choose_site(config.site, self.network, self.family, model_options)
        if self.obstacle:
            self.warn(f"this run is not accelerated: {self.obstacle}")
        elif why:
            self.warn(f"features are taken at site {self.site} instead of {config.site}: {why}")
        for notice in self.full_steps.notices:
            self.warn(notice)

    def reserving(self, conds: dict[str, Any]) -> AbstractContextManager[None]:
        """While open, the host loads the model so as to leave room for the cache: that of the first site that can fit.
        """
        if self.obstacle or not self.session.forecasts:
            return nullcontext()
        needed = {
            site: self.room.needed(expected_features(self.guider, conds, self.shapes, self.family, site))
            for site in _sites_from(self.site, self.network, self.family)}
        run = self.room.run(self.shapes[0])
        self._settle(needed, lambda size: self.room.could_be(size, run), "can be there beside the model")
        log.info("%s: about %.1f MB reserved for the cache at site %s", self.config.node, needed[self.site] / 1e6,
                 self.site)
        return self.room.reserved(needed[self.site] if self.room.shared else 0)

    def _settle(self, needed: dict[str, int], fits: Callable[[int], bool], limit: str) -> None:
        """Goes to the first site where the cache fits, or else to the last."""
        wanted = self.site
        for site, size in needed.items():
            self.site = site
            if fits(size):
                break
        if self.site != wanted:
            self.warn(f"features are taken at site {self.site} instead of {wanted}: there the cache would take "
                      f"{needed[wanted] / 1e6:.1f} MB, more than {limit}")

    def begin_evaluation(self, timestep: Tensor) -> None:
        self.channel.progress(self.so_far)
        self.calls = 0
        self.seen.clear()
        if self.sizes:
            self._fit()
        step = self.clock.step(float(timestep.max()))
        self.session.begin_step(step, interpolated(self.coordinates, step) if self.coordinates else None)

    def _fit(self) -> None:
        """After the first evaluation, which told the true sizes of the features and is not forecast from yet: makes
        room for them, or takes them where they are fewer."""
        expected, run = self.site, self.room.run(self.input_shape)
        needed = {site: self.room.needed(sum(sizes.values())) for site, sizes in self.sizes.items()}
        self._settle(needed, lambda size: self.room.is_free(size, run), "is free")
        self.sizes.clear()
        self.measured = True
        if self.site != expected:
            self.session.forget_features()

    def begin_call(self) -> None:
        self.calls += 1
        self.seen.clear()

    def apply(self, model: nn.Module, x: Tensor, options: dict[str, Any], control: Any, changing: Hashable,
              call: Any) -> Any:
        """`call(transformer_options, control)` goes on to the network, with its features forecast or recorded.

        `changing` is what else may come and go between steps and makes a stream another one.
        """
        # A guider may run a second model of its own for the opposite prompt.
        family = self.family if model is self.network else find_family(model)
        session, site = self.session, SITES[self.site]
        with self.lock:
            streams = self._streams(x, options, (changing, controls_of(control)))
            self.input_shape = tuple(x.shape)
            names = site.features(model, family)
            usable = bool(streams) and bool(names) and not self.obstacle and session.forecasts
            forecast = usable and session.begin_call(streams, names)
            recordable = streams if usable and not forecast else []
            wanted = [stream for stream in recordable if session.wants_features(stream)]

        ran: list[str] = []
        recording = _Recording(self, streams, wanted)
        if isinstance(control, DeferredControl):
            control = control.run() if site.needs_control or not forecast else None
        embedders = self.embedders.setdefault(tuple(streams), Embedders())
        needless = site.needless(family)
        if forecast:
            passed_by = needless if embedders.blocks_rest else ()
            with (watching_blocks(model, family, ran), embedders.passed_by(model, passed_by),
                  site.substituting(model, family, options, _Forecasts(self, streams)) as substituted):
                result = call(substituted, control)
            embedders.blocks_rest = not ran
        else:
            with ExitStack() as stack:
                if wanted:
                    stack.enter_context(site.recording(model, family, recording.keep))
                    stack.enter_context(embedders.noted(model, needless))
                if usable and not self.measured:
                    self._size(model, family, streams, stack)
                result = call(options, control)

        with self.lock:
            if wanted:
                recording.end(names)
            if ran:
                self.warn("blocks ran on a forecast step: another node keeps them from being skipped, nothing is saved")
            session.count_run(saved=forecast and not ran)
        return result

    def _size(self, model: nn.Module, family: Family, streams: list[Hashable], stack: ExitStack) -> None:
        """Notes how large the features of this call are, at this site and at those that may have to serve instead."""
        def noting(site: str) -> Callable[[str, Tensor], None]:
            sizes = self.sizes.setdefault(site, {})
            return lambda name, feature: sizes.update({(name, *streams): feature.nbytes})

        for site in _sites_from(self.site, model, family):
            stack.enter_context(SITES[site].recording(model, family, noting(site)))

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

    def warn(self, message: str) -> None:
        self.session.warn(message)
        self._log_once(message)

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            log.warning("%s: %s", self.config.node, message)

    def so_far(self) -> RunReport:
        return self._with_expected(self.session.progress(time.perf_counter() - self.started, self._settings()))

    def publish(self) -> RunReport:
        report = self._with_expected(
            self.session.report(time.perf_counter() - self.started, self.obstacle, self._settings()))
        for message in report.warnings:
            self._log_once(message)  # those of the session itself, known only now
        self.channel.done(report)
        return report

    def stopped(self) -> None:
        """The run was interrupted or has failed; nothing of ours may take that exception's place."""
        try:
            self.channel.stopped(self.so_far())
        except Exception:
            log.exception("%s: no report of the run that was stopped", self.config.node)

    def _with_expected(self, report: RunReport) -> RunReport:
        return replace(report, expected_errors=self.full_steps.expected_errors)

    def _settings(self) -> dict[str, str]:
        return {"site": self.site, "model": self.family.name, "coordinate": self.config.coordinate,
                "calibration": self.full_steps.calibration}


class _Forecasts(Forecasts):
    """Of the chunks of one call, one after the other in the batch."""

    def __init__(self, run: _Run, streams: list[Hashable]):
        self.run, self.streams = run, streams

    def of(self, name: str) -> Tensor:
        with self.run.lock:
            return self.run.session.forecast(self.streams, name)

    def added(self, name: str, to: Tensor, gate: Tensor) -> Tensor:
        with self.run.lock:
            return self.run.session.forecast_added(self.streams, name, to, gate)


class _Recording:
    """The features of one call, each taken as it comes: all of them together would be as large as a buffer."""

    def __init__(self, run: _Run, streams: list[Hashable], wanted: list[Hashable]):
        self.run, self.streams, self.wanted = run, streams, wanted
        self.seen: set[str] = set()

    def keep(self, name: str, feature: Tensor) -> None:
        if feature.shape[0] % len(self.streams):
            return
        self.seen.add(name)
        with self.run.lock:
            for stream, part in zip(self.streams, feature.chunk(len(self.streams)), strict=True):
                if stream in self.wanted:
                    self.run.session.record_site(stream, name, part)

    def end(self, names: tuple[str, ...]) -> None:
        """The forward is done. (That of an interrupted run never is.)"""
        complete = self.seen == set(names)
        if not complete:
            self.run.warn(
                "modules that another node skips or replaces did not run: their features can't be recorded")
        for stream in self.wanted:
            self.run.session.end_recording(stream)
            if not complete:
                self.run.session.forget(stream)


def _run_of(options: dict[str, Any] | None) -> _Run | None:
    return (options or {}).get(KEY)


def _prepare_sampling(executor: Any, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
    run = _run_of((kwargs.get("model_options") or {}).get("transformer_options"))
    with run.reserving(conds) if run is not None else nullcontext():
        return executor(model, noise_shape, conds, *args, **kwargs)


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
        conds = with_deferred_controls(conds)
    return executor(model, conds, x, timestep, model_options, *args, **kwargs)


def _apply_model(executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
                 control: Any = None, transformer_options: dict[str, Any] | None = None, *args: Any,
                 **kwargs: Any) -> Any:
    options = transformer_options or {}

    def call(options: dict[str, Any], control: Any) -> Any:
        return executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)

    run = _run_of(options)
    if run is None:
        return call(options, control)
    return run.apply(executor.class_obj.diffusion_model, x, options, control,
                     (_shape(c_concat), _shape(c_crossattn)), call)


def _shape(tensor: Any) -> Hashable:
    """Of one sample: how many go into one call may change, and makes no other stream."""
    return tuple(tensor.shape[1:]) if isinstance(tensor, Tensor) else None
