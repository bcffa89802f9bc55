"""Settings by name: the papers'. What our own measurements chose for each family is MEASURED.

    preset = PAPERS["FeMo, FLUX, O=1"]
    predictor, schedule = preset.predictor, preset.schedule(interval=6)
"""

from __future__ import annotations

from dataclasses import dataclass

from .predictor import AbstractPredictor
from .predictors.femo import FeMo
from .predictors.scaled_taylor import ScaledTaylor
from .predictors.taylorseer import TaylorSeer
from .schedule import Schedule


@dataclass(frozen=True)
class Preset:
    """A predictor and its schedule, but for the interval, which is the user's choice of speed (papers: 3 … 10)."""

    predictor: AbstractPredictor
    warmup_steps: int
    cooldown_steps: int = 0

    def schedule(self, interval: int) -> Schedule:
        return Schedule(interval, self.warmup_steps, self.cooldown_steps)


# TaylorSeer (ICCV 2025), its experiments; FeMo (ICLR 2026 manuscript), App. C: 50 steps, site module. Where FeMo gives
# a range, this is its middle; its bounds for DiT at O=1 are "the first β ± δ", δ 0.01 … 0.03.
PAPERS: dict[str, Preset] = {
    "FORA, FLUX": Preset(TaylorSeer(0), warmup_steps=3),
    "FORA, DiT": Preset(TaylorSeer(0), warmup_steps=2),
    "TaylorSeer, FLUX, O=1": Preset(TaylorSeer(1), warmup_steps=3),
    "TaylorSeer, FLUX, O=2": Preset(TaylorSeer(2), warmup_steps=3),
    "TaylorSeer, DiT, O=3": Preset(TaylorSeer(3), warmup_steps=2),
    "TaylorSeer, DiT, O=4": Preset(TaylorSeer(4), warmup_steps=2),
    "FeMo, FLUX, O=1": Preset(FeMo(1, beta=0.325), warmup_steps=3),
    "FeMo, DiT, O=1": Preset(FeMo(1, beta=-0.2), warmup_steps=2),
    "FeMo, DiT, O=2": Preset(FeMo(2, beta=-0.02), warmup_steps=2),
    "Adapted-FeMo, FLUX, O=1": Preset(
        FeMo(1, beta=0.325, gamma=0.0125, beta_min=0.2, beta_max=0.45), warmup_steps=3),
    "Adapted-FeMo, DiT, O=1": Preset(
        FeMo(1, beta=-0.2, gamma=0.005, beta_min=-0.22, beta_max=-0.18), warmup_steps=2),
    "Adapted-FeMo, DiT, O=2": Preset(
        FeMo(2, beta=-0.02, gamma=0.005, beta_min=-0.04, beta_max=0.0), warmup_steps=2),
}

# Chosen over the regimes of the two older small models (benchmarks/results/regimes.md), on other seeds and prompts than
# are measured there, at site hidden: the papers' β, the momentum started as their text has it. The nodes' defaults.
MEASURED: dict[str, Preset] = {
    "FLUX": Preset(FeMo(1, beta=0.325, momentum_start="feature"), warmup_steps=3, cooldown_steps=1),
    "DiT": Preset(FeMo(1, beta=0.325, momentum_start="feature"), warmup_steps=2, cooldown_steps=1),
}

# With full steps that a calibration chose: best or next to it on both small models, and nearly the same for all of
# 14 to 7 full steps (benchmarks/results/calibration.md).
CALIBRATED = Preset(FeMo(1, beta=-0.3), warmup_steps=3, cooldown_steps=1)

# With RampSchedule, where nothing is known of the model: a line through the last two full steps, its slope held back,
# as a trajectory that slows down wants it (benchmarks/results/regimes.md).
RAMP = ScaledTaylor(factors=((0, 0.5),))
