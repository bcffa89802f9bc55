"""One run of a pipeline: which step and stream each call of the transformer belongs to, and what is done with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...parallel import whole_norms
from ...plans.full_steps import FullSteps
from ...report import RunReport
from ...session import ForecastSession
from .schedulers import Levels, index_of, steps_of
from .sites import Call

OUTPUT = "output"  # a site, and its one feature


class Chosen(NamedTuple):
    """What one run is to do. levels: its steps; none where those of the scheduler's whole schedule serve."""

    full_steps: FullSteps
    levels: Levels | None = None


class Run:
    """One run of a pipeline's denoising loop. obstacle: why it can't be accelerated, or ""."""

    def __init__(self, scheduler: Any, site: str, chosen: Chosen, call: Call, transformer: nn.Module, obstacle: str):
        self.full_steps, levels = chosen
        self.scheduler, self.site, self.call = scheduler, site, call
        self.transformer, self.obstacle = transformer, obstacle
        self.timesteps = scheduler.timesteps
        self.steps = levels.steps if levels else steps_of(self.timesteps)
        total = levels.total if levels else max(self.steps, default=-1) + 1
        self.last = levels.last_evaluation if levels else len(self.steps) - 1
        group = group_of(transformer)
        parted = None if site == OUTPUT else group  # the output is whole on every process
        # Processes would not look at the same moment, and have to do the same.
        guarded = self.full_steps.guarded and not group
        self.session = ForecastSession(self.full_steps.schedule, self.full_steps.predictor, total,
                                       share=whole_norms(parted) if parted else None,
                                       tolerance=self.full_steps.tolerance,
                                       expected_errors=self.full_steps.expected_errors if guarded else None)
        for notice in self.full_steps.notices:
            self.session.warn(notice)
        self.started = time.perf_counter()
        self.evaluation = -1  # which one of the scheduler's this is
        self.calls: Counter[str | None] = Counter()  # in it, by context
        self.calls_before = 0  # in the one before
        self.names: dict[Hashable, tuple[str, ...]] = {}  # of the features that a stream has, once they are known
        self.returns: Any = tuple  # the class of what the transformer returns, around its tensor
        self.first_timestep: Tensor | None = None

    def is_over(self) -> bool:
        """Whether the scheduler has come to its end, has been made ready for another run, or has gone back."""
        if self.scheduler.timesteps is not self.timesteps:
            return True
        index = index_of(self.scheduler)
        return index is not None and not self.evaluation <= index < len(self.steps)

    def made_its_last_call(self) -> bool:
        """As many in the last evaluation as there were in the one before."""
        return self.evaluation == self.last and self.calls.total() >= self.calls_before

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
        index = index_of(self.scheduler)
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
        index, first = index_of(self.scheduler), self.first_timestep
        if index == 0 and timestep is not None and first is not None and float(timestep.max()) != float(first.max()):
            self.obstacle = "the scheduler given to enable_femo does not move: give it the one that the pipeline uses"
            self.session.forget_features()

    def _forecast(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        if self.site == OUTPUT:
            tensor = self.session.forecast([stream], OUTPUT)
            return (tensor,) if self.returns is tuple else self.returns(sample=tensor)
        self.call.forecast = lambda name: self.session.forecast([stream], name)
        return forward()

    def _record(self, stream: Hashable, forward: Callable[[], Any]) -> Any:
        recorded: dict[str, Tensor] = {}
        self.call.recorded = recorded
        output = forward()
        if self.site == OUTPUT:
            recorded[OUTPUT], self.returns = output[0], output.__class__
        if self.call.repeated or not recorded:
            self.session.warn("modules ran several times in one call, or not at all: their features can't be recorded")
        else:
            self.names[stream] = tuple(recorded)
            self.session.record(stream, {**recorded})
        return output

    def publish(self) -> RunReport:
        settings = {"site": self.site, "model": type(self.transformer).__name__, **self.full_steps.words}
        report = self.session.report(
            time.perf_counter() - self.started, self.obstacle or self.full_steps.reason, settings)
        return report.expecting(self.full_steps.expected_errors)


def group_of(transformer: Any) -> Any:
    """The processes that share its tokens, if diffusers' context parallelism is on it."""
    config = getattr(getattr(transformer, "_parallel_config", None), "context_parallel_config", None)
    return None if config is None else config._flattened_mesh.get_group()
