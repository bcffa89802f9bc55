"""Which steps of one run are full, as a session asks for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

from ..schedule import AbstractSchedule
from .readback import Readback


class AbstractPlan(ABC):
    """The full steps of one run: known beforehand, or chosen as it goes."""

    goes_by_errors: bool
    """Whether it heeds what was `measured`."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What it did that the user should know."""
        return ()

    @property
    @abstractmethod
    def why_none_predicted(self) -> str:
        """In words, for a run in which steps could have been predicted and none was."""

    @abstractmethod
    def may_be_predicted(self, step: int) -> bool:
        """Whether `step` can be a predicted one, whatever comes."""

    @abstractmethod
    def is_full(self, step: int) -> bool:
        """Whether the network runs at `step`, for streams past their warm-up."""

    @abstractmethod
    def outdated(self, anchor: int, step: int) -> bool:
        """Whether what was recorded at `anchor` may not be forecast from at `step`: a full step was missed since."""

    @abstractmethod
    def measured(self, step: int, gap: int, error: Readback) -> None:
        """Of a stream at this full step: its forecast's error, `gap` steps after its full step before."""

    @abstractmethod
    def restart(self, step: int) -> None:
        """The run has gone back to `step`."""


class FixedPlan(AbstractPlan):
    """A schedule's full steps."""

    goes_by_errors = False

    def __init__(self, schedule: AbstractSchedule, total_steps: int):
        full = schedule.full_steps(total_steps)
        self._total, self._full = total_steps, frozenset(full)
        self._longest_gap = max((after - before for before, after in pairwise((*full, total_steps))), default=1)

    @property
    def why_none_predicted(self) -> str:
        return "no stream of features lasted from one full step to the next"

    def may_be_predicted(self, step: int) -> bool:
        return not self.is_full(step)

    def is_full(self, step: int) -> bool:
        return step in self._full or step >= self._total

    def outdated(self, anchor: int, step: int) -> bool:
        """By the longest gap: a sampler may jump over full steps, and then nobody has missed them."""
        return step - anchor > self._longest_gap

    def measured(self, step: int, gap: int, error: Readback) -> None:
        """Changes nothing."""

    def restart(self, step: int) -> None:
        """Changes nothing."""
