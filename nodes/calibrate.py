"""FeMo Calibrate: the node."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .run.recorder import Recorder


class FeMoCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FeMoCalibrate",
            display_name="FeMo Calibrate",
            category=inputs.CATEGORY,
            description="Learns from an ordinary full run which steps are worth running the network on, and saves it "
                        "under a name that the cache nodes offer as calibration.",
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, without a cache. It is cloned, not changed."),
                inputs.enabled(),
                io.String.Input("name", default="calibration",
                                tooltip="Of the file that the run is saved to when it has finished. Letters, digits, "
                                        "spaces and . _ -"),
                io.Boolean.Input("average", default=False,
                                 tooltip="On: the run is averaged with those that the file holds already, of other "
                                         "prompts or seeds. Off: it takes their place."),
            ],
            outputs=[io.Model.Output(tooltip="The model, as it was: pictures are the same bit for bit.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # else a like node elsewhere gets this one's output, and its messages come here
        )

    @classmethod
    def execute(cls, model, enabled, name, average) -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(model)
        return io.NodeOutput(Recorder(name, average, cls.hidden.unique_id).attach(model))
