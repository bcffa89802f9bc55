"""FeMo Cache: the node."""

from __future__ import annotations

from comfy_api.latest import io

from ..femo_core import FeMo
from . import inputs
from .cache_config import CacheConfig, asked_schedule
from .presets import FEMO
from .run.attach import attach
from .settings import SETTINGS


class FeMoCache(inputs.CalibratedNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FeMoCache",
            display_name="FeMo Cache",
            category=inputs.CATEGORY,
            description="Runs the network on every N-th step and forecasts its features between by momentum (FeMo), "
                        "with gamma above 0 or by least squares adapted to each image (Adapted-FeMo).",
            inputs=inputs.mostly_advanced([
                inputs.model(FEMO),
                inputs.enabled(),
                inputs.interval(),
                inputs.max_order(),
                io.Float.Input(
                    "beta", **SETTINGS["beta"].widget,
                    tooltip="β: the weight of history in the momentum. 0 is TaylorSeer; above 0 smooths, below 0 leans "
                            "ahead. The papers use 0.325 for FLUX, −0.2 for DiT. Sensible: 0.1 … 0.4 with "
                            "momentum_start feature (0.4–0.5 for noisy samplers), −0.4 … −0.1 with zero."),
                io.Float.Input(
                    "gamma", **SETTINGS["gamma"].widget,
                    tooltip="γ: how far β moves at each full step, up or down, for each image by itself "
                            "(Adapted-FeMo). 0 keeps β fixed. The papers use 0.01–0.015 for FLUX, 0.001–0.01 for DiT."),
                io.Float.Input(
                    "beta_min", **SETTINGS["beta_min"].widget,
                    tooltip="Lower bound of β while it adapts, else unused. The papers use 0.2 for FLUX, −0.04 "
                            "for DiT."),
                io.Float.Input(
                    "beta_max", **SETTINGS["beta_max"].widget,
                    tooltip="Upper bound of β while it adapts, else unused. The papers use 0.45 for FLUX, 0 for "
                            "DiT."),
                inputs.warmup_steps(),
                inputs.cooldown_steps(),
                inputs.site(),
                io.Combo.Input(
                    "momentum_start", **SETTINGS["momentum_start"].widget, optional=True,
                    tooltip="Where the momentum starts. feature: at the first recorded feature, the papers' text taken "
                            "literally; it damps the long first forecasts, and measured best at site hidden. "
                            "zero: at 0, with the papers' bias correction; for site output, and for module of DiT."),
                inputs.max_consecutive(),
                inputs.coordinate(),
                inputs.cache_device(),
                inputs.calibration(),
                inputs.budget(),
                inputs.tolerance(),
                io.Combo.Input(
                    "adaptation", **SETTINGS["adaptation"].widget, optional=True,
                    tooltip="How β adapts to each image. sign: up or down by gamma, as in the papers; not at all at "
                            "gamma 0. least_squares: at each full step to the β that would have forecast it best; "
                            "gamma has no part in it, and one tensor more is kept. Sensible for it: beta_min −0.6, "
                            "beta_max 0.9."),
            ]),
            outputs=[inputs.accelerated_model()],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else a like node elsewhere gets this one's output, and its reports come here
        )

    @classmethod
    def execute(cls, model, enabled, interval, max_order, beta, gamma, beta_min, beta_max, warmup_steps,
                cooldown_steps, site, momentum_start="zero", max_consecutive=0, coordinate="steps",
                cache_device="gpu", calibration="none", budget=0, tolerance=0.0, adaptation="sign") -> io.NodeOutput:
        # A workflow for the API from before this input leaves it out, and means what it meant then.
        if not enabled:
            return io.NodeOutput(model)
        return io.NodeOutput(attach(model, CacheConfig(
            predictor=FeMo(max_order, beta=beta, gamma=gamma, beta_min=beta_min, beta_max=beta_max,
                           momentum_start=momentum_start, adaptation=adaptation),
            schedule=asked_schedule(interval, warmup_steps, cooldown_steps, max_consecutive),
            site=site, coordinate=coordinate, cache_device=cache_device, calibration=calibration, budget=budget,
            tolerance=tolerance, node="FeMo Cache", node_id=cls.hidden.unique_id,
        )))
