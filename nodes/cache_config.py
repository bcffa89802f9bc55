"""What a cache node asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..femo_core import Quality, Schedule
from ..femo_core.errors import check_integer
from ..femo_core.plans.error_control import check_tolerance
from ..femo_core.predictor import AbstractPredictor
from .presets import BY_STEPS
from .settings import LEARN
from .sites import SITES

NONE = "none"  # where no calibration is chosen


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run goes by, whatever chooses its full steps. Raises ValueError for what can't be."""

    site: str = "hidden"
    coordinate: Literal["steps", "sigmas"] = "steps"
    cache_device: Literal["gpu", "cpu"] = "gpu"
    node: str = "FeMo Cache"
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"site must be one of {', '.join(SITES)}; got {self.site!r}")
        if self.coordinate not in ("steps", "sigmas"):
            raise ValueError(f"coordinate must be steps or sigmas; got {self.coordinate!r}")
        if self.cache_device not in ("gpu", "cpu"):
            raise ValueError(f"cache_device must be gpu or cpu; got {self.cache_device!r}")


@dataclass(frozen=True, kw_only=True)
class AutoConfig(RunConfig):
    """What FeMo Auto asks for."""

    quality: Quality
    learn: Literal["once", "thorough", "off"] = "once"
    node: str = "FeMo Auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn not in LEARN:
            raise ValueError(f"learn must be one of {', '.join(LEARN)}; got {self.learn!r}")


@dataclass(frozen=True)
class CacheConfig(RunConfig):
    """What the nodes that have the predictor's and the schedule's widgets ask for."""

    predictor: AbstractPredictor
    schedule: Schedule | None  # None: full steps that suit the number of steps
    calibration: str = NONE  # the name of its file
    budget: int = 0  # full steps that it is to choose; 0: as many as the schedule has
    tolerance: float = 0.0  # of the forecast error, without a calibration; 0: full steps are the schedule's

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("budget", self.budget, 0)
        check_tolerance(self.tolerance, self.schedule or Schedule())


def asked_schedule(interval: int, warmup_steps: int, cooldown_steps: int, max_consecutive: int) -> Schedule | None:
    """Of the widgets; None: by the number of steps. Raises ValueError for what is out of range."""
    check_integer("interval", interval, BY_STEPS)
    schedule = Schedule(max(1, interval), warmup_steps, cooldown_steps, max_consecutive)  # which checks them all
    return None if interval == BY_STEPS else schedule
