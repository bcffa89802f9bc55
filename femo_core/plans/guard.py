"""A guard over full steps that were chosen beforehand: where forecasts are far worse than expected, more are full."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean

from ..schedule import AbstractSchedule
from .plan import FixedPlan
from .readback import Readback

FAR = 4.0  # times the expected error; what is expected is of guided outputs, what is measured of a site's features
SMALLEST = 1e-4  # an expected error: below it rounding may be as large


class GuardedPlan(FixedPlan):
    """The schedule's full steps, and once a forecast was far off a further one in the middle of each gap to come.

    expected: forecast errors by full step, relative. What was measured is waited for by nobody: it counts at the first
    step that it has come for, in practice at the next full one.
    """

    def __init__(self, schedule: AbstractSchedule, total_steps: int, expected: Mapping[int, float]):
        super().__init__(schedule, total_steps)
        self._expected = expected
        self._pending: dict[int, list[Readback]] = {}  # by full step
        self._notice = ""
        self._step = -1  # the furthest that was asked for

    @property
    def notices(self) -> tuple[str, ...]:
        return (self._notice,) if self._notice else ()

    def may_be_predicted(self, step: int) -> bool:
        return not super().is_full(step)

    def is_full(self, step: int) -> bool:
        """A step that was asked for before stays what it was."""
        if step > self._step:
            self._step = step
            self._look(step)
        return super().is_full(step)

    def measured(self, step: int, gap: int, error: Readback) -> None:
        if self._expected.get(step, 0.0) > SMALLEST:
            self._pending.setdefault(step, []).append(error)

    def restart(self, step: int) -> None:
        self._pending.clear()
        self._step = step - 1

    def _look(self, step: int) -> None:
        for full, errors in [*self._pending.items()]:
            if full >= step or not all(error.ready for error in errors):
                continue
            del self._pending[full]
            times = fmean(error.values()[0] for error in errors) / self._expected[full]
            if not times <= FAR:  # NaN too
                self._narrow(step)
                self._notice = (
                    f"at step {full} the forecast was {times:.0f} times as far off as this model's profile expects: "
                    "more steps are full from there on")

    def _narrow(self, step: int) -> None:
        to_come = sorted(full for full in (*self._full, self._total) if full >= step)
        last = max((full for full in self._full if full < step), default=step)
        middles = {max(step, (before + after) // 2) for before, after in pairwise((last, *to_come))
                   if after - before > 1}
        self._full = self._full | middles
