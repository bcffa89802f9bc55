"""The presets of femo_core as the values of a node's widgets, for the list in the browser."""

from __future__ import annotations

from dataclasses import asdict

from ..femo_core import FeMo, TaylorSeer
from ..femo_core.predictor import AbstractPredictor
from ..femo_core.presets import CALIBRATED, MEASURED, PAPERS, Preset

BY_STEPS = 0  # interval: full steps by the number of steps
LEVELS = {"quality": 4, "balanced": 6, "fast": 8}  # intervals, measured at 50 steps
FEWER_STEPS = 3  # interval at 20 to 28 steps
BUDGETS = {"quality": 14, "balanced": 10, "fast": 8}  # full steps of 50 that a calibration chooses


def _values(preset: Preset, site: str) -> dict[str, object]:
    return {**asdict(preset.predictor), "warmup_steps": preset.warmup_steps, "cooldown_steps": preset.cooldown_steps,
            "site": site, "coordinate": "steps", "max_consecutive": 0, "tolerance": 0.0}


def _measured(kind: type[AbstractPredictor]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for family, preset in MEASURED.items():
        if isinstance(preset.predictor, kind):
            levels = {"any number of steps": BY_STEPS, "20–28 steps": FEWER_STEPS} | {
                f"{level}, 50 steps": interval for level, interval in LEVELS.items()}
            for level, interval in levels.items():
                found[f"{family}: {level}"] = {"interval": interval, **_values(preset, "hidden")}
    return found


def _calibrated() -> dict[str, dict[str, object]]:
    """The interval serves where the calibration doesn't."""
    return {f"with a calibration: {level}, 50 steps": {
        "interval": LEVELS[level], "budget": budget, **_values(CALIBRATED, "hidden")}
        for level, budget in BUDGETS.items()}


def _papers(kind: type[AbstractPredictor]) -> dict[str, dict[str, object]]:
    return {f"papers: {name}": _values(preset, "module") for name, preset in PAPERS.items()
            if isinstance(preset.predictor, kind)}


FEMO = _measured(FeMo) | _calibrated() | _papers(FeMo)
TAYLORSEER = _measured(TaylorSeer) | _papers(TaylorSeer)
