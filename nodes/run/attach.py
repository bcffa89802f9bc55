"""The only patching of ComfyUI: a cloned model gets wrappers, and each sampling run a copy of its options.

Life cycle: the clone carries nothing but an immutable RunConfig and the last run's report, plain data, inside its
wrappers. OUTER_SAMPLE makes a Run, puts it into this run's transformer_options, and frees it in `finally`.
PREPARE_SAMPLING reserves memory, PREDICT_NOISE tells the run its step, CALC_COND_BATCH counts its calls, APPLY_MODEL
records or forecasts. The shared model is patched only inside a `with`, of a site or while memory is reserved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...femo_core import RunReport
from ...femo_core.plans.full_steps import FullSteps
from ..cache_config import CacheConfig, RunConfig
from ..learned.full_steps import choose
from ..reach import Handle, InReach
from . import compiler
from .call import apply
from .control import with_deferred_controls
from .reporting import Channel, Silence
from .run import KEY, Run, run_of
from .switches import hooks_of


def attach(model: Any, config: CacheConfig) -> Any:
    """A clone of a ModelPatcher that samples with `config`. A cache of this pack that is on it already is replaced."""
    return attach_sampling(model, CachedSampling(config))


def attach_sampling(model: Any, sampling: Sampling) -> Any:
    return with_wrappers(model, KEY, {
        WrappersMP.OUTER_SAMPLE: sampling.outer_sample,
        WrappersMP.PREPARE_SAMPLING: _prepare_sampling,
        WrappersMP.PREDICT_NOISE: _predict_noise,
        WrappersMP.CALC_COND_BATCH: _calc_cond_batch,
        WrappersMP.APPLY_MODEL: _apply_model,
    })


def last_report(model: Any) -> RunReport | None:
    """What the last run of a patched model did. None before its first run."""
    wrappers = model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY)
    if not wrappers:
        return RunReport(reason="there is no cache on this model, or it is switched off")
    return wrappers[0].__self__.last.report


def with_wrappers(model: Any, key: str, wrappers: Mapping[str, Callable[..., Any]]) -> Any:
    """A clone of a ModelPatcher with these wrappers, by kind, in the place of those that have the key already."""
    model = model.clone()
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, key)
        model.add_wrapper_with_key(kind, key, wrapper)
    return model


@contextmanager
def own_options(guider: Any) -> Iterator[dict[str, Any]]:
    """While open, the guider samples with a copy of its model_options, whose transformer_options are handed out."""
    options = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(options)
    try:
        yield guider.model_options.setdefault("transformer_options", {})
    finally:
        guider.model_options = options


def make_outermost(transformer_options: dict[str, Any], kind: str, key: str, wrapper: Callable[..., Any]) -> None:
    """Adds a wrapper for this run that sees what the sampler gets."""
    wrappers = transformer_options.setdefault("wrappers", {})
    wrappers[kind] = {key: [wrapper], **wrappers.get(kind, {})}


def with_callback(tell: Callable[[int], None], args: tuple[Any, ...],
                  kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of OUTER_SAMPLE, what comes behind sigmas: with a callback that first tells the step."""
    placed = len(args) > 1  # denoise_mask, callback, …
    own = args[1] if placed else kwargs.get("callback")

    def callback(step: int, *others: Any) -> Any:
        tell(step)
        return own(step, *others) if own is not None else None

    return ((args[0], callback, *args[2:]), kwargs) if placed else (args, {**kwargs, "callback": callback})


def _make_innermost(transformer_options: dict[str, Any]) -> None:
    """What other nodes do around the network happens on predicted steps too; and one that puts a compiled network in
    the network's place has done so."""
    wrappers = transformer_options["wrappers"][WrappersMP.APPLY_MODEL]
    transformer_options["wrappers"][WrappersMP.APPLY_MODEL] = {
        **{key: value for key, value in wrappers.items() if key != KEY}, KEY: wrappers[KEY]}


@dataclass
class _LastRun:
    report: RunReport | None = None


@dataclass(frozen=True)
class Sampling(InReach, ABC):
    """What a node has on a model: nothing but what it asks for, and the last run's report."""

    config: RunConfig
    last: _LastRun = field(default_factory=_LastRun, compare=False)

    @abstractmethod
    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        """Chooses full steps, and has `sample` do the rest."""

    def sample(self, full_steps: FullSteps, executor: Any, noise: Tensor, latent_image: Any, sampler: Any,
               sigmas: Tensor, *args: Any, silent: bool = False, **kwargs: Any) -> Any:
        """One sampling run. silent: nobody is told of it, and it leaves no report."""
        guider = executor.class_obj
        channel = Silence() if silent else Channel(self.config.node, self.config.node_id)
        run = Run(self.config, full_steps, sigmas, guider, kwargs.get("latent_shapes") or [noise.shape], channel)
        handle = Handle(run)
        try:
            with own_options(guider) as transformer_options, compiler.off(run.changes_the_network):
                transformer_options[KEY] = handle
                run.watch(guider.model_options)
                _make_innermost(transformer_options)
                args, kwargs = with_callback(run.sampler_is_at, args, kwargs)
                result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
                report = run.publish()
                if not silent:
                    self.last.report = report
                return result
        except BaseException:
            run.stopped()
            raise
        finally:
            handle.held = None
            run.session.close()


@dataclass(frozen=True)
class CachedSampling(Sampling):
    """By the node's own settings."""

    config: CacheConfig

    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        full_steps = choose(self.config, executor.class_obj.model_patcher.model, sigmas.tolist())
        return self.sample(full_steps, executor, noise, latent_image, sampler, sigmas, *args, **kwargs)


def _prepare_sampling(executor: Any, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
    run = run_of((kwargs.get("model_options") or {}).get("transformer_options"))
    with run.reserving(conds, noise_shape) if run is not None else nullcontext():
        return executor(model, noise_shape, conds, *args, **kwargs)


def _predict_noise(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any,
                   **kwargs: Any) -> Any:
    run = run_of(model_options.get("transformer_options"))
    if run is not None:
        run.evaluates(timestep)
    return executor(x, timestep, model_options, *args, **kwargs)


def _calc_cond_batch(executor: Any, model: nn.Module, conds: Any, x: Tensor, timestep: Tensor,
                     model_options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    run = run_of(model_options.get("transformer_options"))
    if run is not None:
        run.calls(x, timestep)
        conds = with_deferred_controls(conds)
    return executor(model, conds, x, timestep, model_options, *args, **kwargs)


def _apply_model(executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
                 control: Any = None, transformer_options: dict[str, Any] | None = None, *args: Any,
                 **kwargs: Any) -> Any:
    options = transformer_options or {}

    def go_on(options: dict[str, Any], control: Any) -> Any:
        return executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)

    run = run_of(options)
    if run is None:
        return go_on(options, control)
    conditioning = (_shape(c_concat), _shape(c_crossattn), frozenset(kwargs))
    model = executor.class_obj
    return apply(run, model.diffusion_model, x, options, control, conditioning, hooks_of(model), go_on)


def _shape(tensor: Any) -> Hashable:
    """Of one sample: how many go into one call may change, and makes no other stream."""
    return tuple(tensor.shape[1:]) if isinstance(tensor, Tensor) else None
