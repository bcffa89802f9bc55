"""The bookkeeping of a run: at which step it is, and what of each stream may be forecast or is to be recorded there."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from ..plans.error_control import make_plan
from ..predictor import AbstractPredictor
from ..schedule import AbstractSchedule


class Streams:
    """Steps and streams of one run, without their features.

    plan: which steps are full. step: the present one, as the host gave it. coordinate: where that is for the predictor.
    Raises ValueError as `make_plan` does.
    """

    def __init__(self, schedule: AbstractSchedule, predictor: AbstractPredictor, total_steps: int, tolerance: float,
                 expected: Mapping[int, float]):
        self.schedule, self.total_steps = schedule, total_steps
        self.plan = make_plan(schedule, tolerance, predictor.max_order, total_steps, expected)
        self.step = self.coordinate = 0.0
        self._last_predicted = max(filter(self.plan.may_be_predicted, range(total_steps)), default=-1)
        self._first_step: dict[Hashable, int] = {}
        self._anchor: dict[Hashable, float] = {}
        self._finished: set[Hashable] = set()  # streams of which nothing more is forecast

    @property
    def index(self) -> int:
        """The whole step that the schedule goes by."""
        return math.floor(self.step)

    @property
    def counted_index(self) -> int:
        """That of the run's steps which it counts as."""
        return min(self.index, max(0, self.total_steps - 1))

    @property
    def any_forecast(self) -> bool:
        """Whether any step may be predicted at all."""
        return self._last_predicted >= 0

    @property
    def any_to_come(self) -> bool:
        """Whether a step after this one may be predicted."""
        return self.index < self._last_predicted

    def begin_step(self, step: float, coordinate: float | None) -> list[Hashable]:
        """The run comes to a step. Returns the streams that start afresh: all, where it went back by more than one."""
        outdated: list[Hashable] = []
        if math.floor(step) < self.index - 1:
            outdated = list(self._first_step)
            self.plan.restart(math.floor(step))
        self.step = float(step)
        self.coordinate = self.step if coordinate is None else float(coordinate)
        return outdated

    def missed_a_full_step(self, stream: Hashable) -> bool:
        anchor = math.floor(self._anchor.get(stream, self.step))
        return stream not in self._finished and self.plan.outdated(anchor, self.index)

    def appears(self, stream: Hashable) -> None:
        self._first_step.setdefault(stream, self.index)

    def may_be_forecast(self, streams: Sequence[Hashable]) -> bool:
        """Whether the schedule has a predicted step and every stream is past its warm-up."""
        if self.plan.is_full(self.index):
            return False
        return all(self._age(stream) >= self.schedule.leading_steps for stream in streams)

    def wants_features(self, stream: Hashable) -> bool:
        """Whether a full step's features of the stream are to be recorded: a later step may be forecast from them.

        Those of the first full step after the last forecast are wanted too, to measure what it would have been.
        """
        if not self.any_to_come:
            return stream in self._anchor and stream not in self._finished
        if self._age(stream) < self.schedule.first_recorded_step:
            return False
        anchor = self._anchor.get(stream)
        return anchor is None or anchor == self.step or math.floor(anchor) < self.index

    def is_anchored_here(self, stream: Hashable) -> bool:
        """Whether its anchor is this very step, so that recording replaces it."""
        return self._anchor.get(stream) == self.step

    def gap(self, stream: Hashable) -> int | None:
        """Steps since its anchor, at a full step of the plan; else None."""
        anchor = self._anchor.get(stream)
        return self.index - math.floor(anchor) if anchor is not None and self.plan.is_full(self.index) else None

    def recorded(self, stream: Hashable) -> None:
        """Its features of this step have been: they are its anchor, or were the last that are wanted."""
        if self.any_to_come:
            self._anchor[stream] = self.step
        else:
            self._finished.add(stream)

    def forget(self, stream: Hashable) -> None:
        self._anchor.pop(stream, None)
        self._finished.discard(stream)
        self._first_step.pop(stream, None)

    def forget_anchors(self) -> None:
        """Streams keep their age."""
        self._anchor.clear()

    def _age(self, stream: Hashable) -> int:
        return self.index - self._first_step.get(stream, self.index)
