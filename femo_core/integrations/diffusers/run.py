"""One run of a pipeline: which step and stream each call of the transformer belongs to, and what is done with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...parallel import whole_norms
from ...predictor import AbstractPredictor
from ...report import RunReport
from ...schedule import AbstractSchedule
from ...session import ForecastSession
from .sites import Call

OUTPUT = "output"  # a site, and its one feature


@dataclass(frozen=True)
class Settings:
    """What `enable_femo` was given."""

    schedule: AbstractSchedule
    predictor: AbstractPredictor
    scheduler: Any
    site: str
    tolerance: float = 0.0


class Run:
    """One run of a pipeline's denoising loop. obstacle: why it can't be accelerated, or ""."""

    def __init__(self, settings: Settings, call: Call, transformer: nn.Module, obstacle: str):
        self.settings, self.call, self.transformer, self.obstacle = settings, call, transformer, obstacle
        self.timesteps = settings.scheduler.timesteps
        self.steps = _steps_of(self.timesteps)
        group = _group_of(transformer) if settings.site != OUTPUT else None  # the output is whole on every process
        self.session = ForecastSession(settings.schedule, settings.predictor, max(self.steps, default=-1) + 1,
                                       share=whole_norms(group) if group else None, tolerance=settings.tolerance)
        self.started = time.perf_counter()
        self.evaluation = -1  # which one of the scheduler's this is
        self.calls: Counter[str | None] = Counter()  # in it, by context
        self.calls_before = 0  # in the one before
        self.names: dict[Hashable, tuple[str, ...]] = {}  # of the features that a stream has, once they are known
        self.returns: Any = tuple  # the class of what the transformer returns, around its tensor
        self.first_timestep: Tensor | None = None

    def is_over(self) -> bool:
        """Whether the scheduler has come to its end, has been made ready for another run, or has gone back."""
        if self.settings.scheduler.timesteps is not self.timesteps:
            return True
        index = _index_of(self.settings.scheduler)
        return index is not None and not self.evaluation <= index < len(self.steps)

    def made_its_last_call(self) -> bool:
        """As many in the last evaluation as there were in the one before."""
        return self.evaluation == len(self.steps) - 1 and self.calls.total() >= self.calls_before

    def evaluate(self, context: str | None, timestep: Tensor | None, forward: Callable[[], Any]) -> Any:
        """What the transformer returns, its features recorded or forecast."""
        if self.evaluation < 0:
            self.first_timestep = timestep
        elif self.evaluation == 0 and self.calls[context]:
            self._check_scheduler(timestep)
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
        """Tells the session the step, and returns the key of the stream. Nothing is read from the device for it."""
        index = _index_of(self.settings.scheduler)
        if index is None:  # then a second call in the same context is the next evaluation's
            index = self.evaluation + (self.evaluation < 0 or self.calls[context] > 0)
        if index != self.evaluation:
            self.evaluation, self.calls_before = index, self.calls.total()
            self.calls.clear()
            self.session.begin_step(self.steps[index] if index < len(self.steps) else self.session.total_steps)
        self.calls[context] += 1
        return context, self.calls[context]

    def _check_scheduler(self, timestep: Tensor | None) -> None:
        """Another timestep while the scheduler has not moved: it is not the one that the pipeline uses."""
        index, first = _index_of(self.settings.scheduler), self.first_timestep
        if index == 0 and timestep is not None and first is not None and float(timestep.max()) != float(first.max()):
            self.obstacle = "the scheduler given to enable_femo does not move: give it the one that the pipeline uses"
            self.session.forget_features()

    def _forecast(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        if self.settings.site == OUTPUT:
            tensor = self.session.forecast([stream], OUTPUT)
            return (tensor,) if self.returns is tuple else self.returns(sample=tensor)
        self.call.forecast = lambda name: self.session.forecast([stream], name)
        return forward()

    def _record(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        recorded: dict[str, Tensor] = {}
        self.call.recorded = recorded
        output = forward()
        if self.settings.site == OUTPUT:
            recorded[OUTPUT], self.returns = output[0], output.__class__
        if self.call.repeated or not recorded:
            self.session.warn("modules ran several times in one call, or not at all: their features can't be recorded")
        else:
            self.names[stream] = tuple(recorded)
            self.session.record(stream, {**recorded})
        return output

    def publish(self) -> RunReport:
        settings = {"site": self.settings.site, "model": type(self.transformer).__name__}
        return self.session.report(time.perf_counter() - self.started, self.obstacle, settings)


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
