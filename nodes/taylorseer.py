"""TaylorSeer Cache: the node."""

from __future__ import annotations

from comfy_api.latest import io

from ..femo_core import TaylorSeer
from . import inputs
from .cache_config import CacheConfig, asked_schedule
from .presets import TAYLORSEER
from .run.attach import attach


class TaylorSeerCache(inputs.CalibratedNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TaylorSeerCache",
            display_name="TaylorSeer Cache",
            category=inputs.CATEGORY,
            description="Runs the network on every N-th step and forecasts its features between by a Taylor series of "
                        "finite differences (TaylorSeer).",
            inputs=inputs.mostly_advanced([
                inputs.model(TAYLORSEER),
                inputs.enabled(),
                inputs.interval(),
                inputs.max_order(),
                inputs.warmup_steps(),
                inputs.cooldown_steps(),
                inputs.site(),
                inputs.max_consecutive(),
                inputs.coordinate(),
                inputs.cache_device(),
                inputs.calibration(),
                inputs.budget(),
                inputs.tolerance(),
            ]),
            outputs=[inputs.accelerated_model()],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else a like node elsewhere gets this one's output, and its reports come here
        )

    @classmethod
    def execute(cls, model, enabled, interval, max_order, warmup_steps, cooldown_steps, site, max_consecutive=0,
                coordinate="steps", cache_device="gpu", calibration="none", budget=0, tolerance=0.0) -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(model)
        return io.NodeOutput(attach(model, CacheConfig(
            predictor=TaylorSeer(max_order),
            schedule=asked_schedule(interval, warmup_steps, cooldown_steps, max_consecutive),
            site=site, coordinate=coordinate, cache_device=cache_device, calibration=calibration, budget=budget,
            tolerance=tolerance, node="TaylorSeer Cache", node_id=cls.hidden.unique_id,
        )))
