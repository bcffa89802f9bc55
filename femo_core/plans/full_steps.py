"""Which steps of a run are full, and how the others are forecast: what a host has chosen for it, and says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..predictor import AbstractPredictor
from ..schedule import AbstractSchedule


@dataclass(frozen=True)
class FullSteps:
    """What was chosen.

    tolerance: as ForecastSession's. expected_errors: by full step, relative; guarded: more steps are full where they
    are far exceeded. words: what a report says of the choice. reason: why all steps are full, else "". notices: what
    did not go as asked.
    """

    schedule: AbstractSchedule
    predictor: AbstractPredictor
    tolerance: float = 0.0
    expected_errors: Mapping[int, float] = field(default_factory=dict[int, float])
    guarded: bool = False
    words: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reason: str = ""
    notices: tuple[str, ...] = ()

    @property
    def learns(self) -> bool:
        """Whether the model's profile is made from this run."""
        return self.words.get("learned") == "learning"
