"""FeMo Auto: the node."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .cache_config import AutoConfig
from .run.auto import attach_auto
from .settings import AUTO, asked_quality


class FeMoAuto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FeMoAuto",
            display_name="FeMo Auto",
            category=inputs.CATEGORY,
            description="Makes sampling faster and changes the picture a little. The first run of a model is full and "
                        "teaches it; later runs compute only the steps that matter and forecast the others.",
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to accelerate. It is cloned, not changed."),
                inputs.enabled(),
                io.Combo.Input(
                    "quality", **AUTO["quality"].widget,
                    tooltip="How much the picture may change: high 2 %, balanced 5 %, fast 10 % of its latent. Each "
                            "run takes the fewest full steps that keep to it. by speed-up: as many as speedup says."),
                io.Float.Input(
                    "speedup", **AUTO["speedup"].widget,
                    tooltip="With quality by speed-up: how many times fewer steps are computed. Sensible: 1.5 to 4."),
                io.Combo.Input(
                    "learn", **AUTO["learn"].widget,
                    tooltip="once: the first run of an unknown model is full and teaches it. thorough: then also "
                            "tries out candidates, once, which takes as long as several runs. off: a rule that knows "
                            "nothing of the model serves; it changes the picture more."),
                inputs.advanced(inputs.site(optional=True)),
                inputs.advanced(inputs.cache_device()),
            ],
            outputs=[inputs.accelerated_model()],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else a like node elsewhere gets this one's output, and its reports come here
        )

    @classmethod
    def execute(cls, model, enabled, quality, speedup, learn, site="hidden", cache_device="gpu") -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(model)
        return io.NodeOutput(attach_auto(model, AutoConfig(
            quality=asked_quality(quality, speedup), learn=learn, site=site, cache_device=cache_device,
            node_id=cls.hidden.unique_id)))
