"""The inputs that the cache nodes share. Ids, ranges and order are saved in workflows: they may widen, never narrow."""

from __future__ import annotations

from comfy_api.latest import io

from .cache_config import NONE
from .learned.calibration_file import names, stamp
from .settings import SETTINGS

CATEGORY = "model_patches/femo"


def model(presets: dict[str, dict[str, object]]) -> io.Input:
    """`presets` go along with the node's definition, for the list in the browser that fills its widgets."""
    return io.Model.Input("model", tooltip="The diffusion model to accelerate. It is cloned, not changed.",
                          extra_dict={"femo_presets": presets})


def enabled() -> io.Input:
    return io.Boolean.Input(
        "enabled", default=True, tooltip="Off: the model passes through untouched, bit for bit.")


def interval() -> io.Input:
    return io.Int.Input(
        "interval", **SETTINGS["interval"].widget,
        tooltip="0: as many full steps as suit the number of steps, dense at first: 14 of 50, 9 of 20, 6 of 8. From 1 "
                "on N in the papers: after the warm-up the network runs on every N-th step, the others are forecast; 1 "
                "turns forecasting off. Sensible: 0; the papers use 3 to 10 at 50 steps.")


def max_order() -> io.Input:
    return io.Int.Input(
        "max_order", **SETTINGS["max_order"].widget,
        tooltip="O (or m) in the papers: the highest derivative used. 0 reuses the last feature, 1 follows a line, "
                "2 a curve. Higher needs more memory and smoother features. Sensible: 1 or 2.")


def warmup_steps() -> io.Input:
    return io.Int.Input(
        "warmup_steps", **SETTINGS["warmup_steps"].widget,
        tooltip="Leading steps on which the network always runs. The papers use 3 for FLUX and 2 for DiT.")


def cooldown_steps() -> io.Input:
    return io.Int.Input(
        "cooldown_steps", **SETTINGS["cooldown_steps"].widget,
        tooltip="Trailing steps on which the network always runs. The papers use 0; with a shifted schedule the last "
                "steps are long and one of them is worth having. Sensible: 0–2.")


def site(optional: bool = False) -> io.Input:
    return io.Combo.Input(
        "site", **SETTINGS["site"].widget, optional=optional,
        tooltip="Where features are forecast. hidden: before the final layer, cheap (25 MB a tensor for FLUX at "
                "1024²). module: attention and MLP of every block, as in the papers (2 GB a tensor). output: what the "
                "network returns, the cheapest.")


def max_consecutive() -> io.Input:
    return io.Int.Input(
        "max_consecutive", **SETTINGS["max_consecutive"].widget, optional=True,
        tooltip="At most so many forecast steps in a row, whatever the interval says. 0: no limit but the interval.")


def coordinate() -> io.Input:
    return io.Combo.Input(
        "coordinate", **SETTINGS["coordinate"].widget, optional=True,
        tooltip="What a forecast goes by: the number of steps, as in the papers, or how far the noise level falls in "
                "them, which differs where a schedule is shifted.")


def cache_device() -> io.Input:
    return io.Combo.Input(
        "cache_device", **SETTINGS["cache_device"].widget, optional=True,
        tooltip="Where recorded features are kept. gpu: where the model runs. cpu: in main memory, slower, for site "
                "module on a small card.")


def calibration() -> io.Input:
    return io.Combo.Input(
        "calibration", options=[NONE, *names()], default=NONE, optional=True,
        tooltip="What FeMo Calibrate saved of a full run of this model: full steps are those that it finds best, not "
                "those of the interval, warm-up and cool-down. They serve where it can't be used.")


def budget() -> io.Input:
    return io.Int.Input(
        "budget", **SETTINGS["budget"].widget, optional=True,
        tooltip="How many full steps the calibration is to choose. 0: as many as the interval would give. Sensible: a "
                "fifth to a third of the steps.")


def tolerance() -> io.Input:
    return io.Float.Input(
        "tolerance", **SETTINGS["tolerance"].widget, optional=True,
        tooltip="Error control: the forecast error measured at each full step widens or narrows the gap to the next, "
                "to keep it at this. The interval is then the widest gap. 0: off, every N-th step. Unused with a "
                "calibration, which does better.")


class CalibratedNode(io.ComfyNode):
    """A cache node: what ComfyUI asks about its calibration before anything runs."""

    @classmethod
    def validate_inputs(cls, calibration=NONE) -> bool:
        return True  # one that is not in the list: from another machine, or yet to be made

    @classmethod
    def fingerprint_inputs(cls, calibration=NONE, **others) -> str:
        return stamp(str(calibration))  # one that was made anew is used in the next run


def advanced(shown: io.Input) -> io.Input:
    """Behind "Show advanced inputs" where nodes are drawn in Vue, from front end 1.39 on; elsewhere as the others."""
    shown.extra_dict = {**(shown.extra_dict or {}), "advanced": True}
    return shown


def mostly_advanced(shown: list[io.Input]) -> list[io.Input]:
    """A new cache node shows what matters: all but these are advanced."""
    return [one if one.id in ("model", "enabled", "interval", "site") else advanced(one) for one in shown]


def accelerated_model() -> io.Output:
    return io.Model.Output(tooltip="The model, accelerated. Everything before and after this node works as it did.")
