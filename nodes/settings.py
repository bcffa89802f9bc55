"""Every default and range of the cache nodes' inputs. Nodes, pages and locales go by what stands here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..femo_core import QUALITIES, FeMo, Quality
from ..femo_core.predictor import MAX_ORDER
from ..femo_core.presets import MEASURED
from ..femo_core.profiles.quality import LEAST_SPEEDUP, MOST_SPEEDUP
from .presets import BY_STEPS
from .sites import SITES

MOST_STEPS = 1000  # a bound for the widgets only: no sampler is asked for more
BEST = MEASURED["FLUX"]
BY_SPEEDUP = "by speed-up"
LEARN = ("once", "thorough", "off")
ADAPTED = FeMo()  # whose bounds of β are the papers' for FLUX


@dataclass(frozen=True)
class Number:
    """low, high: both included. step: of the widget's arrows, for numbers that are not whole."""

    default: float
    low: float
    high: float
    step: float | None = None

    @property
    def widget(self) -> dict[str, Any]:
        """What the input takes beside its name and tooltip."""
        found: dict[str, Any] = {"default": self.default, "min": self.low, "max": self.high}
        return found if self.step is None else {**found, "step": self.step, "round": False}


@dataclass(frozen=True)
class Choice:
    default: str
    options: tuple[str, ...]

    @property
    def widget(self) -> dict[str, Any]:
        return {"options": list(self.options), "default": self.default}


# Those of both nodes, then FeMo's own. Saved in workflows: ranges may widen, never narrow.
SHARED: dict[str, Number | Choice] = {
    "interval": Number(BY_STEPS, BY_STEPS, 20),
    "max_order": Number(BEST.predictor.max_order, 0, MAX_ORDER),
    "warmup_steps": Number(BEST.warmup_steps, 1, MOST_STEPS),
    "cooldown_steps": Number(BEST.cooldown_steps, 0, MOST_STEPS),
    "site": Choice("hidden", tuple(SITES)),
    "max_consecutive": Number(0, 0, 20),
    "coordinate": Choice("steps", ("steps", "sigmas")),
    "cache_device": Choice("gpu", ("gpu", "cpu")),
    "budget": Number(0, 0, MOST_STEPS),
    "tolerance": Number(0.0, 0.0, 1.0, 0.01),
}
FEMO: dict[str, Number | Choice] = {
    "beta": Number(BEST.predictor.beta, -0.95, 0.95, 0.005),
    "gamma": Number(ADAPTED.gamma, 0.0, 0.5, 0.001),
    "beta_min": Number(ADAPTED.beta_min, -0.95, 0.95, 0.005),
    "beta_max": Number(ADAPTED.beta_max, -0.95, 0.95, 0.005),
    "momentum_start": Choice(BEST.predictor.momentum_start, ("feature", "zero")),
    "adaptation": Choice("sign", ("sign", "least_squares")),
}
AUTO: dict[str, Number | Choice] = {
    "quality": Choice("balanced", (*QUALITIES, BY_SPEEDUP)),
    "speedup": Number(2.0, LEAST_SPEEDUP, MOST_SPEEDUP, 0.1),
    "learn": Choice("once", LEARN),
}
SETTINGS = SHARED | FEMO


def asked_quality(quality: str, speedup: float) -> Quality:
    """Of FeMo Auto's widgets. Raises ValueError for what is none of them."""
    if quality == BY_SPEEDUP:
        return Quality(0.0, speedup)
    if quality not in QUALITIES:
        raise ValueError(f"quality must be one of {', '.join((*QUALITIES, BY_SPEEDUP))}; got {quality!r}")
    return QUALITIES[quality]
