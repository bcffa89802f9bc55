"""DiT Class Label: the node."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from comfy_api.latest import io

from . import inputs
from .dit.host import LABELS

NO_NAME = "(by index)"
NULL_CLASS = -1  # each model has its own number for it: its class count


@cache
def class_names() -> list[str]:
    """"207 golden retriever", … : ImageNet's classes, each with its index, which tells namesakes apart."""
    text = (Path(__file__).parent / "dit" / "imagenet_classes.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [f"{index} {name}" for index, name in enumerate(lines)]


def parse_labels(class_name: str, class_index: str) -> list[int]:
    """Class indices: those given, else the named class, else the null class (−1)."""
    parts = class_index.replace(",", " ").split()
    if not parts:
        return [int(class_name.split(" ")[0])] if class_name != NO_NAME else [NULL_CLASS]
    for part in parts:
        if not part.isdecimal():
            raise ValueError(
                f"class_index must be whole numbers from 0 up, separated by commas; got {part!r} in {class_index!r}")
    return [int(part) for part in parts]


class DiTClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTClassLabel",
            display_name="DiT Class Label",
            category=inputs.CATEGORY,
            description="What a DiT shall draw: a class as conditioning. Left as it is, the null class, which is what "
                        "the sampler's negative input needs for guidance.",
            inputs=[
                io.Combo.Input("class_name", options=[NO_NAME, *class_names()], default=NO_NAME,
                               tooltip="One of ImageNet's 1,000 classes, for DiT-XL/2 and its like. Type to search."),
                io.String.Input("class_index", default="",
                                tooltip="Or the index of any class; it goes before the name. Several, separated by "
                                        "commas, are dealt out to the images of a batch in turn. Empty, with no name "
                                        "chosen: the null class."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The class, for a sampler's positive or negative input.")],
        )

    @classmethod
    def execute(cls, class_name, class_index) -> io.NodeOutput:
        labels = torch.tensor(parse_labels(class_name, class_index))
        # ComfyUI wants a text embedding in a conditioning; the labels travel beside it, as integers (in bfloat16 999
        # would become 1000, the null class).
        return io.NodeOutput([[torch.zeros(1, 1, 1), {LABELS: labels}]])
