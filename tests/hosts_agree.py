"""Settings in which hosts are set beside the standalone one: host/test_standalone.py, benchmarks/test_pipelines.py."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.sampling.subjects import Job, TinyDiT, TinyFlux

SUBJECTS = (TinyFlux, TinyDiT)
JOB = Job(("red house day", "blue moon night"), seed=5)
STEPS = 20


class Setting(NamedTuple):
    predictor: str
    arguments: dict[str, float]
    interval: int
    site: str = "hidden"
    tolerance: float = 1e-4  # of the forecasts' error: how far two hosts' may lie from one another

    def __str__(self) -> str:
        return f"{self.predictor}-{self.interval}-{self.site}"

    def predictor_in(self, femo_core: Any) -> Any:
        """ComfyUI loads the pack, and its femo_core with it, under a name of its own."""
        return getattr(femo_core, self.predictor)(**self.arguments)


IN_FULL = Setting("TaylorSeer", {"max_order": 1}, 1)
FORECAST = [setting._replace(site=site) for site in ("hidden", "module", "output") for setting in (
    Setting("TaylorSeer", {"max_order": 2}, 4),
    Setting("FeMo", {"max_order": 1}, 6),
    Setting("FeMo", {"max_order": 1, "gamma": 0.015}, 5, tolerance=2e-3),  # adapted: its signs may tie
)]


def relative(result: Tensor, reference: Tensor) -> float:
    return ((result - reference).norm() / reference.norm()).item()
