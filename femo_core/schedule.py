"""Which steps of a run are full steps (the network runs) and which are predicted."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import check_integer


@dataclass(frozen=True)
class Schedule:
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
        """Whether the network runs at `step` of a run of `total_steps` steps. It does beyond its end."""
        since_warmup = step - (self.warmup_steps - 1)
        if since_warmup <= 0 or step >= total_steps - self.cooldown_steps:
            return True
        since_full = since_warmup % self.interval
        return since_full % (self.max_consecutive + 1) == 0 if self.max_consecutive else since_full == 0

    def full_steps(self, total_steps: int) -> tuple[int, ...]:
        """All full steps of a run of `total_steps` steps, ascending."""
        check_integer("total_steps", total_steps, 0)
        return tuple(step for step in range(total_steps) if self.is_full(step, total_steps))

    @property
    def first_recorded_step(self) -> int:
        """Features of earlier steps are not recorded: the first derivative appears at step warmup_steps − 1.

        As in TaylorSeer's reference implementation; what the network does in its very first steps is a poor guide.
        """
        return max(0, self.warmup_steps - 2)
