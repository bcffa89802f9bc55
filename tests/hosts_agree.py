"""Settings in which hosts are set beside the standalone one: host/test_standalone.py, benchmarks/test_pipelines.py."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from distance import distance
from torch import Tensor

from benchmarks.sampling.subjects import Job, TinyDiT, TinyFlux

SUBJECTS = (TinyFlux, TinyDiT)
JOB = Job(("red house day", "blue moon night"), seed=5)
STEPS = 20


SHARES = {"ComfyUI": 0.93, "diffusers": 0.07}  # of how far two hosts may lie apart, the standalone one between them


class Setting(NamedTuple):
    predictor: str
    arguments: dict[str, float]
    interval: int
    site: str = "hidden"

    def __str__(self) -> str:
        return f"{self.predictor}-{self.interval}-{self.site}"

    @property
    def adapts(self) -> bool:
        """Its signs may tie."""
        return "gamma" in self.arguments

    def predictor_in(self, femo_core: Any) -> Any:
        """ComfyUI loads the pack, and its femo_core with it, under a name of its own."""
        return getattr(femo_core, self.predictor)(**self.arguments)


IN_FULL = Setting("TaylorSeer", {"max_order": 1}, 1)
FORECAST = [setting._replace(site=site) for site in ("hidden", "module", "output") for setting in (
    Setting("TaylorSeer", {"max_order": 2}, 4),
    Setting("FeMo", {"max_order": 1}, 6),
    Setting("FeMo", {"max_order": 1, "gamma": 0.015}, 5),
)]


def assert_agree(setting: Setting, host: str, alone: tuple[Tensor, Tensor], hosted: tuple[Tensor, Tensor]) -> None:
    """alone, hosted: what a full run gives, and one that forecasts.

    The full runs of DiT are 1e-4 apart as it is: ComfyUI's latent has a variance of up to 10⁴, ours of 1, and float32
    rounds them otherwise.
    """
    share, apart = SHARES[host], 2e-3 if setting.adapts else 1e-4
    (full, forecast), (full_there, forecast_there) = alone, hosted
    error = distance(forecast, full)
    assert distance(full_there, full) < 2e-4 * share
    assert distance(forecast_there, forecast) < 3 * apart * share
    assert distance(forecast_there, full_there) == pytest.approx(error, abs=apart * share)
    assert error > 5 * apart  # there is something to agree on
