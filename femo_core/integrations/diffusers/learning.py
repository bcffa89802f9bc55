"""Records a full run by what the pipeline gives to its scheduler's step. The run stays as it is, bit for bit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

from torch import Tensor

from ...calibration import TrajectoryGram
from ...profiles.profile import Recording
from .schedulers import Levels, index_of

Outcome = Recording | str  # what was learned, or why nothing


class Learning:
    """One run. `step` takes the guided output, what the sampler goes by, which the transformer never sees.

    Until the run's last step, or `close`, the scheduler has a `step` of ours around its own. Of several evaluations at
    a noise level the last counts, the one that the step itself starts from. Features lie in main memory.

    done: is told the outcome after the last step. What goes wrong is an outcome, never an exception.
    """

    def __init__(self, scheduler: Any, levels: Levels, done: Callable[[Outcome], None]):
        self.scheduler, self.levels, self.done = scheduler, levels, done
        self.timesteps: list[float] = scheduler.timesteps.tolist()
        self.evaluation = -1  # that the transformer ran in last
        self.features: dict[int, Tensor] = {}  # by step
        self.size = 1.0  # root mean square of what was denoised last
        self.obstacle = ""
        self.watchers = _watch(scheduler, self)

    @property
    def unseen(self) -> bool:
        """Whether the transformer ran in several evaluations and the scheduler made no step."""
        return self.evaluation > 0 and not self.features and not self.obstacle

    def close(self) -> None:
        self.features.clear()
        _unwatch(self.scheduler, self)

    def before_step(self, arguments: dict[str, Any]) -> int:
        """Returns which evaluation the step is of."""
        index = index_of(self.scheduler)
        index = self.evaluation if index is None else index
        try:
            self.obstacle = self.obstacle or self._obstacle(index, arguments)
            if not self.obstacle and index <= self.levels.last_evaluation:
                step = self.levels.steps[index]
                derivative, denoised = self.levels.read(step, arguments["model_output"], arguments["sample"])
                self.features[step] = derivative.to("cpu", copy=True)
                self.size = float(denoised.square().mean().sqrt())
        except Exception as error:
            self.obstacle = f"{type(error).__name__}: {error}"
        return index

    def after_step(self, index: int) -> None:
        if index < self.levels.last_evaluation:
            return
        try:
            outcome: Outcome = self._recording()
        except Exception as error:
            outcome = str(error)
        self.close()
        self.done(outcome)

    def _obstacle(self, index: int, arguments: dict[str, Any]) -> str:
        if index != self.evaluation:
            return ("the transformer did not run in every step; where another one goes on (Wan 2.2), give enable_auto "
                    "`until`, the noise level at which it does")
        if float(arguments["timestep"]) != self.timesteps[index]:
            return "the loop is not at the scheduler's timestep; one that begins in the midst calls set_begin_index"
        if arguments["model_output"].shape != arguments["sample"].shape:
            return "what the scheduler gets is not of the sample's shape"
        if drawn := next((name for name in ("eta", "s_churn") if arguments.get(name)), ""):
            return f"{drawn} is {arguments[drawn]}, and so noise is drawn anew"
        if arguments.get("per_token_timesteps") is not None:
            return "its tokens have noise levels of their own"
        return ""

    def _recording(self) -> Recording:
        """Raises ValueError, saying why, where there is nothing to keep."""
        total = self.levels.total
        if self.obstacle or len(self.features) < total:
            raise ValueError(self.obstacle or f"{len(self.features)} of its {total} steps were seen only")
        gram = TrajectoryGram()
        for step in range(total):
            gram.record(step, self.features.pop(step))
        shift = getattr(self.scheduler, "shift", None)
        return Recording(
            sigmas=self.levels.sigmas, signals=self.levels.signals, size=self.size, stochastic=self.levels.stochastic,
            matrix=tuple(tuple(map(float, row)) for row in gram.matrix), sampler=type(self.scheduler).__name__,
            shift=float(shift) if isinstance(shift, int | float) else None)


def _watch(scheduler: Any, learning: Learning) -> list[Learning]:
    """Returns all that watch it: Wan 2.2's two transformers share a scheduler."""
    before: Any = _own(scheduler)
    watchers: list[Learning] | None = getattr(before, "watchers", None)
    if watchers is not None:
        watchers.append(learning)
        return watchers
    watchers = [learning]
    kind: Any = scheduler.__class__
    parameters = inspect.signature(kind.step)

    @wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = parameters.bind(self, *args, **kwargs).arguments
        seen = [(one, one.before_step(arguments)) for one in watchers if one.scheduler is self]  # not by a copy of it
        result: Any = before(*args, **kwargs) if before else kind.step(self, *args, **kwargs)
        for one, index in seen:
            one.after_step(index)
        return result

    vars(step).update(watchers=watchers, before=before)
    scheduler.step = MethodType(step, scheduler)  # a copy of the scheduler gets a method of its own
    return watchers


def _unwatch(scheduler: Any, learning: Learning) -> None:
    if learning not in learning.watchers:
        return
    learning.watchers.remove(learning)
    there: Any = _own(scheduler)
    if learning.watchers or getattr(there, "watchers", None) is not learning.watchers:
        return
    if there.before:
        scheduler.step = there.before
    else:
        del scheduler.step


def _own(scheduler: Any) -> Any:
    """What it has in the place of its class's step, or None."""
    return scheduler.__dict__.get("step")
