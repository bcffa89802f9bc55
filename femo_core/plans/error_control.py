"""Error control: the forecast error measured at a full step says how far the next full step may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import check_number
from ..schedule import AbstractSchedule, Schedule
from .guard import GuardedPlan
from .plan import AbstractPlan, FixedPlan
from .readback import Readback


def make_plan(schedule: AbstractSchedule, tolerance: float, order: int, total_steps: int,
              expected: Mapping[int, float]) -> AbstractPlan:
    """The schedule's, under error control if there is a tolerance, else under guard if errors are expected.

    Raises ValueError as `check_tolerance` does.
    """
    controlled = check_tolerance(tolerance, schedule)
    if controlled is None:
        return GuardedPlan(schedule, total_steps, expected) if expected else FixedPlan(schedule, total_steps)
    return ErrorControl(controlled, tolerance, order, total_steps)


def check_tolerance(tolerance: float, schedule: AbstractSchedule) -> Schedule | None:
    """The schedule that error control is to go by, or None where it is off.

    Raises ValueError for a tolerance outside 0 … 1, and for one above 0 with full steps that are given one by one.
    """
    check_number("tolerance", tolerance, "0 … 1 (0 is off)", lambda value: 0.0 <= value <= 1.0)
    if not tolerance:
        return None
    if not isinstance(schedule, Schedule):
        raise ValueError(f"tolerance must be 0 with {type(schedule).__name__}, whose full steps are given one by one; "
                         f"got {tolerance}: give a Schedule, whose interval is then the widest gap")
    return schedule


def next_gap(gap: int, error: float, tolerance: float, order: int, widest: int) -> int:
    """Steps to the next full step, 1 … `widest`, at which the error of a forecast will have come to the tolerance.

    error: relative, of the forecast of `order` O for a full step `gap` steps after the one before. It grows as
    gap^(O+1), the remainder of a Taylor series, so that it meets the tolerance after
    gap · (tolerance / error)^(1 / (O+1)) steps. An error that is not a number tells nothing: 1.

    Source: step size control of solvers of differential equations (Hairer, Nørsett, Wanner, "Solving Ordinary
    Differential Equations I", Sec. II.4).
    """
    if math.isnan(error):
        return 1
    if error <= 0.0:
        return widest
    return max(1, round(min(widest, gap * (tolerance / error) ** (1 / (order + 1)))))


class ErrorControl(AbstractPlan):
    """Which steps of one run are full, where that goes by the forecast errors of its own full steps.

    Warm-up and cool-down are the schedule's, and so is the widest gap. Where several streams were measured at a full
    step, all must be within the tolerance: the narrowest gap counts. Where none was, the next step is full.

    The errors are small tensors on the device. They are waited for once per full step, when a later step asks.
    """

    goes_by_errors = True

    def __init__(self, schedule: Schedule, tolerance: float, order: int, total_steps: int):
        self.schedule, self.tolerance, self.order, self.total_steps = schedule, tolerance, order, total_steps
        self._full: set[int] = set()  # so far
        self._last = -1  # of them
        self._next: int | None = 0  # None: not known yet, it goes by what was measured
        self._measured: list[tuple[int, Readback]] = []  # gap and error of each stream, at the last full step

    @property
    def why_none_predicted(self) -> str:
        return f"no forecast came near the tolerance ({self.tolerance})"

    def may_be_predicted(self, step: int) -> bool:
        return self.schedule.widest_gap > 1 and not self.schedule.is_warmup_or_cooldown(step, self.total_steps)

    def is_full(self, step: int) -> bool:
        """A step that was asked for before, or passed by, stays what it was."""
        if step > self._last and (not self.may_be_predicted(step) or step >= self._next_full()):
            self._full.add(step)
            self._last, self._next = step, None
            self._measured.clear()
        return step in self._full

    def _next_full(self) -> int:
        if self._next is None:
            gaps = [next_gap(gap, error.values()[0], self.tolerance, self.order, self.schedule.widest_gap)
                    for gap, error in self._measured]
            self._next = self._last + min(gaps, default=1)
        return self._next

    def outdated(self, anchor: int, step: int) -> bool:
        return any(anchor < full < step for full in self._full)

    def measured(self, step: int, gap: int, error: Readback) -> None:
        self._measured.append((gap, error))

    def restart(self, step: int) -> None:
        """What was decided from there on is void."""
        self._full = {full for full in self._full if full < step}
        self._last, self._next = step - 1, step
        self._measured.clear()
