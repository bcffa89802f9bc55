"""Forecasting switched on and off for a diffusers transformer: a hook on it, and those on its blocks (sites.py)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook, StateManager
from torch import nn

from ...plans.error_control import check_tolerance
from ...plans.full_steps import FullSteps
from ...predictor import AbstractPredictor
from ...report import RunReport
from ...schedule import AbstractSchedule
from .auto import Auto
from .families import FAMILIES
from .learning import Learning, Outcome
from .run import OUTPUT, Chosen, Run
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
    check_tolerance(tolerance, schedule)
    _enable(transformer, scheduler, site, lambda obstacle: Chosen(FullSteps(schedule, predictor, tolerance)))


def enable_auto(transformer: nn.Module, *, scheduler: Any, profile: str | os.PathLike[str] | None,
                quality: str | float = "balanced", learn: str = "once", until: float = 0.0,
                site: str = "hidden") -> None:
    """FeMo Auto: as `enable_femo`, with full steps and forecasts that are chosen for each run by what is known.

    The first run is in full, bit-equal to one without it, and makes the profile; later ones are accelerated by that,
    whatever their number of steps, scheduler, guidance, size and prompt. Noise levels that the profile does not cover,
    and schedulers that draw noise anew, are learned in addition. What can't be learned goes by a rule, and says why: a
    scheduler that FORMS in schedulers.py does not have, a run of more than 100 steps. One of 4 steps or less is full.

    scheduler: the pipeline's. During a run that is learned from it has a `step` of ours around its own, which hands on
        to the profile what the sampler goes by: what guidance makes of the transformer's outputs.
    profile: path of the model's JSON file. A damaged one is put aside and the model learned anew. One of another
        transformer (class, shapes of weights) is refused. One that ComfyUI's FeMo Auto has learned is taken for this
        model's, which can't be checked, but for its kind of noise levels; and ComfyUI takes this one, given the name
        that it has there.
    quality: "high", "balanced" or "fast", for a change of the result of about 2, 5 or 10 %; or a speed-up, 1.2 … 8.
    learn: "once", or "off": nothing is read or written, and a rule serves, of 1.5, 2 or 3-fold. To learn thoroughly:
        `learn_thoroughly`.
    until: the noise level, 1 … 0 of flow models, below which another transformer goes on: for the first of Wan 2.2's
        `pipe.config.boundary_ratio`. Each has a profile of its own.

    Under diffusers' context parallelism the first process chooses and writes for all, and no guard narrows gaps.

    Raises ValueError as `enable_femo`, and for what is none of these.
    """
    auto = Auto.checked(transformer, scheduler, quality, learn, profile, until)
    _enable(transformer, scheduler, site, auto.choose, auto)


def _enable(transformer: nn.Module, scheduler: Any, site: str, choose: Callable[[str], Chosen],
            auto: Auto | None = None) -> None:
    if site not in SITES:
        raise ValueError(f"site must be one of {', '.join(SITES)}; got {site!r}")
    if not hasattr(scheduler, "timesteps"):
        raise ValueError(f"scheduler must be the pipeline's, with timesteps; got {scheduler!r}")
    disable_femo(transformer)
    lists = FAMILIES.get(type(transformer).__name__, ())
    if site != OUTPUT and not lists:
        log.warning("features are taken at site output instead of %s: %s is not known well enough for it", site,
                    type(transformer).__name__)
        site = OUTPUT
    hook = TransformerHook(scheduler, site, choose, auto)
    if site != OUTPUT:
        hook.inside = add_hooks(transformer, lists, site, hook.call)
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.register_hook(hook, HOOK)
    registry.invalidate_child_registries_cache()


def disable_femo(transformer: nn.Module) -> None:
    """Removes the hooks and frees the buffers. Does nothing where there are none."""
    if hook := hook_on(transformer):
        hook.drop()
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.remove_hook(HOOK, recurse=True)
    registry.invalidate_child_registries_cache()


def last_report(transformer: nn.Module) -> RunReport | None:
    """What the last run that came to its end did. None before it, and where forecasting is not enabled."""
    hook = hook_on(transformer)
    if hook is None:
        return None
    hook.finish_if_over()
    return hook.report


def hook_on(transformer: nn.Module) -> TransformerHook | None:
    hook = HookRegistry.check_if_exists_or_initialize(transformer).get_hook(HOOK)
    return hook if isinstance(hook, TransformerHook) else None


class TransformerHook(ModelHook):
    fn_ref: Any
    _is_stateful = True

    def __init__(self, scheduler: Any, site: str, choose: Callable[[str], Chosen], auto: Auto | None):
        super().__init__()
        self.scheduler, self.site, self.choose, self.auto = scheduler, site, choose, auto
        self.learning: Learning | None = None  # from the present run, or one whose last step is still to be made
        self.contexts: Any = StateManager(cast(Any, BaseState))  # cache_context tells it whose call comes
        self.call = Call()  # shared with the hooks inside
        self.inside: list[tuple[str, nn.Module]] = []  # the modules that have them
        self.run: Run | None = None
        self.report: RunReport | None = None
        self.warned: set[str] = set()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.finish_if_over()
        if self.run is None:
            self._begin(module)
        assert self.run
        try:
            output = self.run.evaluate(
                self._context(), arguments_of(type(module), args, kwargs).get("timestep"),
                lambda: self.fn_ref.original_forward(*args, **kwargs))
        except BaseException:
            self.drop()
            raise
        if self.learning:
            self.learning.evaluation = self.run.evaluation
        if self.run.made_its_last_call():
            self.finish()
        return output

    def _begin(self, transformer: nn.Module) -> None:
        self._stop_learning()
        obstacle = self._obstacle(transformer)
        chosen = self.choose(obstacle)
        self.run = Run(self.scheduler, self.site, chosen, self.call, transformer, obstacle)
        if chosen.full_steps.learns and chosen.levels:
            self.learning = Learning(self.scheduler, chosen.levels, self._learned)

    def _learned(self, outcome: Outcome) -> None:
        """After the scheduler's last step of a run that was learned from: in most pipelines it is finished by then."""
        assert self.auto
        assert self.learning
        failure = self.auto.learned(self.learning.levels, outcome)
        self.learning = None
        if failure and self.run:
            self.run.session.warn(failure)
        elif failure and self.report:
            self.report = replace(self.report, warnings=(*self.report.warnings, failure))
            self._warn(failure)

    def _stop_learning(self) -> None:
        """Of a run that has not come to its end, or is over."""
        if self.learning is None:
            return
        if self.auto and self.learning.unseen:
            self.auto.unlearnable = "the scheduler made no step: give enable_auto the one that the pipeline uses"
        self.learning.close()
        self.learning = None

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
        self._stop_learning()
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
        reason = self.report.reason
        unexpected = reason and (self.run.session.forecasts or (
            self.auto and (self.run.obstacle or not self.run.full_steps.learns)))
        for message in self.report.warnings or ((reason,) if unexpected else ()):
            self._warn(message)
        self._free()

    def _warn(self, message: str) -> None:
        """Once."""
        if message not in self.warned:
            log.warning("FeMo on %s: %s", self.report.settings["model"] if self.report else "", message)
            self.warned.add(message)

    def drop(self) -> None:
        """The run, finished or not, its buffers, and what was recorded of it."""
        self._stop_learning()
        self._free()

    def _free(self) -> None:
        if self.run is not None:
            self.run.session.close()
        self.run = None
