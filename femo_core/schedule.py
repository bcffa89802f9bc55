"""Which steps of a run are full steps (the network runs) and which are predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

from .errors import check_integer
from .noise_levels import check_sigmas


@dataclass(frozen=True)
class AbstractSchedule(ABC):
    """Says which steps are full. Steps count up from 0; it knows indices only, no noise levels."""

    @abstractmethod
    def is_full(self, step: int, total_steps: int) -> bool:
        """Whether the network runs at `step` of a run of `total_steps` steps. It does beyond its end."""

    def full_steps(self, total_steps: int) -> tuple[int, ...]:
        """All full steps of a run of `total_steps` steps, ascending."""
        check_integer("total_steps", total_steps, 0)
        return tuple(step for step in range(total_steps) if self.is_full(step, total_steps))

    @property
    @abstractmethod
    def leading_steps(self) -> int:
        """Full steps that a stream of features starts with, one that appears in mid-run too."""

    @property
    @abstractmethod
    def first_recorded_step(self) -> int:
        """Features of earlier steps are not recorded."""

    @abstractmethod
    def why_all_full(self, total_steps: int) -> str:
        """In words, for a run of which every step is full."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a report says of it."""
        return asdict(self)


@dataclass(frozen=True)
class Schedule(AbstractSchedule):
    """The papers' schedule: a warm-up, then every N-th step, and optionally a cool-down.

    Steps count up from 0. Steps 0 … warmup_steps − 1 are full, then every `interval`-th step counted from step
    warmup_steps − 1, and the last `cooldown_steps` steps. `interval` 1 makes every step full. A run shorter than the
    warm-up is simply full. It is *not* a rule about noise levels: it knows step indices only.

    Source: TaylorSeer (ICCV 2025), Sec. 4.1, and FeMo, App. C ("forced activation period N"). The cool-down is ours.

    max_consecutive: at most so many predicted steps in a row, further full steps are put in; 0 means interval − 1,
    which adds none.

    Raises ValueError for interval < 1, warmup_steps < 1, cooldown_steps < 0 or max_consecutive < 0.
    """

    interval: int = 6
    warmup_steps: int = 3
    cooldown_steps: int = 0
    max_consecutive: int = 0

    def __post_init__(self) -> None:
        check_integer("interval", self.interval, 1)
        check_integer("warmup_steps", self.warmup_steps, 1)
        check_integer("cooldown_steps", self.cooldown_steps, 0)
        check_integer("max_consecutive", self.max_consecutive, 0)

    def is_full(self, step: int, total_steps: int) -> bool:
        if self.is_warmup_or_cooldown(step, total_steps):
            return True
        since_full = (step - (self.warmup_steps - 1)) % self.interval
        return since_full % (self.max_consecutive + 1) == 0 if self.max_consecutive else since_full == 0

    def is_warmup_or_cooldown(self, step: int, total_steps: int) -> bool:
        """Whether `step` is full whatever the interval. Beyond the run's end all are."""
        return step < self.warmup_steps or step >= total_steps - self.cooldown_steps

    @property
    def widest_gap(self) -> int:
        """Steps from a full step to the next, at most, whatever the run."""
        return min(self.interval, self.max_consecutive + 1) if self.max_consecutive else self.interval

    @property
    def leading_steps(self) -> int:
        return self.warmup_steps

    @property
    def first_recorded_step(self) -> int:
        """Features of earlier steps are not recorded: the first derivative appears at step warmup_steps − 1.

        As in TaylorSeer's reference implementation; what the network does in its very first steps is a poor guide.
        """
        return max(0, self.warmup_steps - 2)

    def why_all_full(self, total_steps: int) -> str:
        if self.interval == 1:
            return "interval is 1"
        return (f"all {total_steps} steps fall into the warm-up ({self.warmup_steps}), the interval ({self.interval}) "
                f"or the cool-down ({self.cooldown_steps})")


@dataclass(frozen=True)
class ExplicitSchedule(AbstractSchedule):
    """Full steps given one by one, as `calibrate_schedule` finds them.

    steps: ascending, the first 0. total_steps: of the run that they are for; a run of another number of steps has them
    at the same parts of it. 0: they are taken as they are, whatever the run.

    Raises ValueError for steps that do not start at 0, do not ascend, or lie beyond total_steps.
    """

    steps: tuple[int, ...] = (0,)
    total_steps: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check_integer("total_steps", self.total_steps, 0)
        if not self.steps or self.steps[0] != 0 or any(a >= b for a, b in pairwise(self.steps)):
            raise ValueError(f"steps must ascend and start at 0; got {self.steps}")
        if self.total_steps and self.steps[-1] >= self.total_steps:
            raise ValueError(f"steps must lie below total_steps ({self.total_steps}); got {self.steps[-1]}")

    def is_full(self, step: int, total_steps: int) -> bool:
        return step >= total_steps or step in self._scaled(total_steps)

    def _scaled(self, total_steps: int) -> set[int]:
        if not self.total_steps or self.total_steps == total_steps:
            return set(self.steps)
        # Step i of n starts at i/n of the run, wherever that is in another number of steps.
        return {min(round(step * total_steps / self.total_steps), total_steps - 1) for step in self.steps}

    @property
    def leading_steps(self) -> int:
        return next((i for i, step in enumerate(self.steps) if step != i), len(self.steps))

    @property
    def first_recorded_step(self) -> int:
        return 0

    def why_all_full(self, total_steps: int) -> str:
        return f"the schedule makes all {total_steps} steps full"


@dataclass(frozen=True)
class RampSchedule(AbstractSchedule):
    """Ramp: full steps dense at first, their gaps growing, for a model of which nothing is known.

    budget b: how many full steps. The j-th stands at total_steps · (j / b)^GROWTH, and at least one step after the one
    before. sigmas: the run's noise levels, one more than its steps, if they are known: where its last step is long, the
    last full step is moved there. It is *not* fitted to a model: `tune` is.

    Source: our measurements (benchmarks/results/regimes.md). Schedules that others' searches found on large models look
    alike: of 50 steps 0 1 2 4 6 11 24 41 49 on FLUX.1-dev; this one has 0 1 2 6 10 15 22 30 40.

    Raises ValueError for a budget below 1, and for levels that do not fall.
    """

    budget: int = 9
    sigmas: tuple[float, ...] = ()

    GROWTH: ClassVar[float] = 2.0
    LONG: ClassVar[float] = 0.13  # a last step of that share of the run's noise is full

    def __post_init__(self) -> None:
        check_integer("budget", self.budget, 1)
        object.__setattr__(self, "sigmas", check_sigmas("sigmas", self.sigmas) if self.sigmas else ())

    @classmethod
    def suited(cls, total_steps: int, sigmas: Sequence[float] = ()) -> RampSchedule:
        """As many full steps as suit a run of so many: 2 √total_steps, so 14 of 50, 9 of 20, 6 of 8, 4 of 4."""
        check_integer("total_steps", total_steps, 1)
        return cls(min(total_steps, round(2 * total_steps**0.5)), tuple(sigmas))

    @classmethod
    def along(cls, budget: int, sigmas: Sequence[float]) -> RampSchedule:
        """At the levels that a sampler has. Some schedulers repeat a level, or rise: then it goes by steps alone."""
        try:
            return cls(budget, tuple(sigmas))
        except ValueError:
            return cls(budget)

    def is_full(self, step: int, total_steps: int) -> bool:
        return step >= total_steps or step in self._full(total_steps)

    def _full(self, total_steps: int) -> tuple[int, ...]:
        return _ramp(self.budget, total_steps, self._ends_long(total_steps))

    def _ends_long(self, total_steps: int) -> bool:
        return len(self.sigmas) == total_steps + 1 and (
            self.sigmas[-2] - self.sigmas[-1] > self.LONG * (self.sigmas[0] - self.sigmas[-1]))

    @property
    def leading_steps(self) -> int:
        return 2  # for a stream that starts in mid-run: what a slope needs

    @property
    def first_recorded_step(self) -> int:
        return 0

    def why_all_full(self, total_steps: int) -> str:
        return f"a budget of {self.budget} makes all {total_steps} steps full"

    @property
    def settings(self) -> dict[str, Any]:
        return {"budget": self.budget}  # levels are the run's, and many


@lru_cache(maxsize=64)
def _ramp(budget: int, total_steps: int, ends_long: bool) -> tuple[int, ...]:
    budget = min(budget, total_steps)
    ends_long = ends_long and budget > 1
    ramped, steps = budget - ends_long, list[int]()
    for place in range(ramped):
        wanted = round((total_steps - ends_long) * (place / ramped) ** RampSchedule.GROWTH)
        steps.append(min(max(wanted, steps[-1] + 1 if steps else 0), total_steps - budget + place))
    return (*steps, total_steps - 1) if ends_long else tuple(steps)
