"""Forecasting switched on and off for a diffusers transformer: a hook on it, and those on its blocks (sites.py)."""

from __future__ import annotations

import logging
from typing import Any, cast

from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook, StateManager
from torch import nn

from ...plans.error_control import check_tolerance
from ...predictor import AbstractPredictor
from ...report import RunReport
from ...schedule import AbstractSchedule
from .families import FAMILIES
from .run import OUTPUT, Run, Settings
from .sites import HOOK, Call, add_hooks, arguments_of

SITES = ("hidden", "module", OUTPUT)

log = logging.getLogger(__name__)


def enable_femo(transformer: nn.Module, schedule: AbstractSchedule, predictor: AbstractPredictor, *, scheduler: Any,
                site: str = "hidden", tolerance: float = 0.0) -> None:
    """From now on the transformer runs on the schedule's full steps only. One that was enabled before starts anew.

    scheduler: the pipeline's. Its `timesteps`, which every run sets afresh, say how many steps there are and tell runs
        apart; its `step_index`, where it has one, which step it is. Call this again after changing the pipeline's.
    site: "hidden" (what the last block returns), "module" (what each attention and MLP returns, before its gate) or
        "output". A model that FAMILIES does not have gets "output", with a warning.
    tolerance: above 0 full steps are chosen as the run goes, by the forecast errors: `ForecastSession`.

    Streams are the cache contexts ("cond", "uncond") that the pipeline opens and, within one, the calls of a step in
    their order. Rows of a batch share one, as they do when a pipeline runs both prompts in one batch. The buffers are
    freed after a run's last step and when the network fails; if a pipeline is stopped between two steps, by its next
    run or by `disable_femo`.

    Under diffusers' context parallelism each process keeps its own tokens, Adapted-FeMo and `tolerance` go by the norms
    of the whole, and the errors in a process's report are, at tolerance 0, those of its part. Load LoRAs before.

    Raises ValueError for an unknown site, for a scheduler without timesteps, and for a tolerance outside 0 … 1 or above
    0 with a schedule that is not one of intervals.
    """
    if site not in SITES:
        raise ValueError(f"site must be one of {', '.join(SITES)}; got {site!r}")
    if not hasattr(scheduler, "timesteps"):
        raise ValueError(f"scheduler must be the pipeline's, with timesteps; got {scheduler!r}")
    check_tolerance(tolerance, schedule)
    disable_femo(transformer)
    lists = FAMILIES.get(type(transformer).__name__, ())
    if site != OUTPUT and not lists:
        log.warning("features are taken at site output instead of %s: %s is not known well enough for it", site,
                    type(transformer).__name__)
        site = OUTPUT
    hook = _TransformerHook(Settings(schedule, predictor, scheduler, site, tolerance))
    if site != OUTPUT:
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


class _TransformerHook(ModelHook):
    fn_ref: Any
    _is_stateful = True

    def __init__(self, settings: Settings):
        super().__init__()
        self.settings = settings
        self.contexts: Any = StateManager(cast(Any, BaseState))  # cache_context tells it whose call comes
        self.call = Call()  # shared with the hooks inside
        self.inside: list[tuple[str, nn.Module]] = []  # the modules that have them
        self.run: Run | None = None
        self.report: RunReport | None = None
        self.warned: set[str] = set()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.finish_if_over()
        if self.run is None:
            self.run = Run(self.settings, self.call, module, self._obstacle(module))
        try:
            output = self.run.evaluate(
                self._context(), arguments_of(type(module), args, kwargs).get("timestep"),
                lambda: self.fn_ref.original_forward(*args, **kwargs))
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
