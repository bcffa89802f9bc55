"""Forecasting switched on and off for a diffusers transformer, and what one run of a pipeline keeps.

Everything hangs on a hook of the transformer's: it finds out which run, step and stream a call belongs to, asks the
ForecastSession whether it is forecast, and tells the hooks inside (sites.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast

from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook, StateManager
from torch import Tensor, nn

from ...parallel import whole_norms
from ...predictor import AbstractPredictor
from ...report import RunReport
from ...schedule import AbstractSchedule
from ...session import ForecastSession
from .families import FAMILIES
from .sites import HOOK, Call, add_hooks

SITES = ("hidden", "module", "output")
OUTPUT = "output"  # the one feature of the site of that name

log = logging.getLogger(__name__)


def enable_femo(transformer: nn.Module, schedule: AbstractSchedule, predictor: AbstractPredictor, *, scheduler: Any,
                site: str = "hidden") -> None:
    """From now on the transformer runs on the schedule's full steps only. One that was enabled before starts anew.

    scheduler: the pipeline's. Its `timesteps`, which every run sets afresh, say how many steps there are and tell runs
        apart; its `step_index`, where it has one, which step it is. Call this again after changing the pipeline's.
    site: "hidden" (what the last block returns), "module" (what each attention and MLP returns, before its gate) or
        "output". A model that FAMILIES does not have gets "output", with a warning.

    Streams are the cache contexts ("cond", "uncond") that the pipeline opens and, within one, the calls of a step in
    their order. Rows of a batch share one, as they do when a pipeline runs both prompts in one batch. The buffers are
    freed after a run's last step and when the network fails; if a pipeline is stopped between two steps, by its next
    run or by `disable_femo`.

    Under diffusers' context parallelism each process keeps its own tokens, Adapted-FeMo goes by the norms of the whole,
    and the errors in a process's report are those of its part. Load LoRAs before.

    Raises ValueError for an unknown site, and for a scheduler without timesteps.
    """
    if site not in SITES:
        raise ValueError(f"site must be one of {', '.join(SITES)}; got {site!r}")
    if not hasattr(scheduler, "timesteps"):
        raise ValueError(f"scheduler must be the pipeline's, with timesteps; got {scheduler!r}")
    disable_femo(transformer)
    lists = FAMILIES.get(type(transformer).__name__, ())
    if site != "output" and not lists:
        log.warning("features are taken at site output instead of %s: %s is not known well enough for it", site,
                    type(transformer).__name__)
        site = "output"
    hook = _TransformerHook(_Settings(schedule, predictor, scheduler, site))
    if site != "output":
        hook.inside = add_hooks(transformer, lists, site, hook.call)
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.register_hook(hook, HOOK)
    registry.invalidate_child_registries_cache()


def disable_femo(transformer: nn.Module) -> None:
    """Removes the hooks and frees the buffers. Does nothing where there are none."""
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    hook = registry.get_hook(HOOK)
    if isinstance(hook, _TransformerHook):
        hook.drop()
    registry.remove_hook(HOOK, recurse=True)
    registry.invalidate_child_registries_cache()


def last_report(transformer: nn.Module) -> RunReport | None:
    """What the last run that came to its end did. None before it, and where forecasting is not enabled."""
    hook = HookRegistry.check_if_exists_or_initialize(transformer).get_hook(HOOK)
    if not isinstance(hook, _TransformerHook):
        return None
    hook.finish_if_over()
    return hook.report


@dataclass(frozen=True)
class _Settings:
    schedule: AbstractSchedule
    predictor: AbstractPredictor
    scheduler: Any
    site: str


class _TransformerHook(ModelHook):
    fn_ref: Any
    _is_stateful = True

    def __init__(self, settings: _Settings):
        super().__init__()
        self.settings = settings
        self.contexts: Any = StateManager(cast(Any, BaseState))  # cache_context tells it whose call comes
        self.call = Call()  # shared with the hooks inside
        self.inside: list[tuple[str, nn.Module]] = []  # the modules that have them
        self.run: _Run | None = None
        self.report: RunReport | None = None
        self.warned: set[str] = set()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.finish_if_over()
        if self.run is None:
            self.run = _Run(self.settings, self.call, module, self._obstacle(module))
        try:
            output = self.run.evaluate(self._context(), lambda: self.fn_ref.original_forward(*args, **kwargs))
        except BaseException:
            self.drop()
            raise
        if self.run.made_its_last_call():
            self.finish()
        return output

    def _obstacle(self, transformer: nn.Module) -> str:
        """Why a run can't be accelerated, or ""."""
        if getattr(transformer, "is_cache_enabled", False):
            return "one of diffusers' own caches is on it too, and only one can work: call its disable_cache()"
        if any(transformer.get_submodule(path) is not module for path, module in self.inside):
            return "modules were replaced after enable_femo (by a LoRA?): call it again"
        return ""

    def _context(self) -> str | None:
        try:
            return self.contexts.context.name
        except ValueError:  # the pipeline has opened none: not all do
            return None

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Pipelines call it at their end, where the transformer has diffusers' CacheMixin."""
        self.finish()
        self.contexts.reset()
        return module

    def finish_if_over(self) -> None:
        """A run that was stopped between two steps, or whose last one had fewer calls than the one before."""
        if self.run is not None and self.run.is_over():
            self.finish()

    def finish(self) -> None:
        if self.run is None:
            return
        self.report = self.run.publish()
        log.info("FeMo on %s: %s", self.report.settings["model"], self.report.summary())
        unexpected = (self.report.reason,) if self.report.reason and self.run.session.forecasts else ()
        for message in self.report.warnings or unexpected:
            if message not in self.warned:
                log.warning("FeMo on %s: %s", self.report.settings["model"], message)
                self.warned.add(message)
        self.drop()

    def drop(self) -> None:
        """The run, finished or not, and its buffers."""
        if self.run is not None:
            self.run.session.close()
        self.run = None


class _Run:
    """One run of a pipeline's denoising loop."""

    def __init__(self, settings: _Settings, call: Call, transformer: nn.Module, obstacle: str):
        self.settings, self.call, self.transformer, self.obstacle = settings, call, transformer, obstacle
        self.timesteps = settings.scheduler.timesteps
        self.steps = _steps_of(self.timesteps)
        group = _group_of(transformer) if settings.site != OUTPUT else None  # the output is whole on every process
        self.session = ForecastSession(settings.schedule, settings.predictor, max(self.steps, default=-1) + 1,
                                       share=whole_norms(group) if group else None)
        self.started = time.perf_counter()
        self.evaluation = -1  # which one of the scheduler's this is
        self.calls: Counter[str | None] = Counter()  # in it, by context
        self.calls_before = 0  # in the one before
        self.names: dict[Hashable, tuple[str, ...]] = {}  # of the features that a stream has, once they are known
        self.returns: Any = tuple  # the class of what the transformer returns, around its tensor

    def is_over(self) -> bool:
        """Whether the scheduler has come to its end, has been made ready for another run, or has gone back."""
        if self.settings.scheduler.timesteps is not self.timesteps:
            return True
        index = _index_of(self.settings.scheduler)
        return index is not None and not self.evaluation <= index < len(self.steps)

    def made_its_last_call(self) -> bool:
        """As many in the last evaluation as there were in the one before."""
        return self.evaluation == len(self.steps) - 1 and self.calls.total() >= self.calls_before

    def evaluate(self, context: str | None, forward: Callable[[], Any]) -> Any:
        """What the transformer returns, its features recorded or forecast."""
        stream = self._begin(context)
        names = self.names.get(stream, ())
        saved = self.session.begin_call([stream], names) and bool(names)
        try:
            if saved:
                output = self._forecast(stream, forward)
            elif self.session.wants_features(stream) and not self.obstacle:
                output = self._record(stream, forward)
            else:
                output = forward()
        finally:
            self.call.clear()
        self.session.count_run(saved)
        return output

    def _begin(self, context: str | None) -> Hashable:
        """Tells the session the step, and returns the key of the stream: nothing is read from the device for it."""
        index = _index_of(self.settings.scheduler)
        if index is None:  # then a second call in the same context is the next evaluation's
            index = self.evaluation + (self.evaluation < 0 or self.calls[context] > 0)
        if index != self.evaluation:
            self.evaluation, self.calls_before = index, self.calls.total()
            self.calls.clear()
            self.session.begin_step(self.steps[index] if index < len(self.steps) else self.session.total_steps)
        self.calls[context] += 1
        return context, self.calls[context]

    def _forecast(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        if self.settings.site == "output":
            tensor = self.session.forecast(stream, OUTPUT)
            return (tensor,) if self.returns is tuple else self.returns(sample=tensor)
        self.call.forecast = lambda name: self.session.forecast(stream, name)
        return forward()

    def _record(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        recorded: dict[str, Tensor] = {}
        self.call.recorded = recorded
        output = forward()
        if self.settings.site == "output":
            recorded[OUTPUT], self.returns = output[0], output.__class__
        if self.call.repeated or not recorded:
            self.session.warn("modules ran several times in one call, or not at all: their features can't be recorded")
        else:
            self.names[stream] = tuple(recorded)
            self.session.record(stream, {**recorded})
        return output

    def publish(self) -> RunReport:
        settings = {"site": self.settings.site, "model": type(self.transformer).__name__}
        return self.session.report(time.perf_counter() - self.started, self._why_nothing_was_saved(), settings)

    def _why_nothing_was_saved(self) -> str:
        stands_still = self.evaluation == 0 and len(self.steps) > 1 and max(self.calls.values(), default=0) > 1
        if stands_still and not self.obstacle:
            return "the scheduler given to enable_femo did not move: give it the one that the pipeline uses"
        return self.obstacle


def _group_of(transformer: Any) -> Any:
    """The processes that share its tokens, if diffusers' context parallelism is on it."""
    config = getattr(getattr(transformer, "_parallel_config", None), "context_parallel_config", None)
    return None if config is None else config._flattened_mesh.get_group()


def _steps_of(timesteps: Any) -> list[int]:
    """By evaluation. A solver that evaluates the model twice at a noise level has that level's timestep twice."""
    steps: list[int] = []
    values = timesteps.tolist()
    for i, value in enumerate(values):
        steps.append(steps[-1] + (value != values[i - 1]) if i else 0)
    return steps


def _index_of(scheduler: Any) -> int | None:
    """Which evaluation comes, or None from a scheduler that does not count them."""
    if not hasattr(scheduler, "step_index"):
        return None
    index = scheduler.step_index
    return index if index is not None else getattr(scheduler, "begin_index", None) or 0
