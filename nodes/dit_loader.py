"""Load DiT: the node."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from . import inputs
from .dit.host import DTYPES, load_dit

FOLDERS = ("diffusion_models", "checkpoints")
# The pack's own small DiT, so that a first workflow needs no download. A user's file of this name comes first.
OWN = {"tiny_dit.safetensors": Path(__file__).parent.parent / "benchmarks" / "checkpoints" / "tiny_dit.safetensors"}


def _names() -> list[str]:
    found = [name for folder in FOLDERS for name in folder_paths.get_filename_list(folder)]
    return list(dict.fromkeys([*found, *OWN]))


def _path(name: str) -> str | Path:
    for folder in FOLDERS:
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return path
    if name in OWN:
        return OWN[name]
    raise ValueError(f"model_name {name!r} is in neither of the folders {' and '.join(FOLDERS)}: put the file there")


class DiTLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTLoader",
            display_name="Load DiT",
            category=inputs.CATEGORY,
            description="Loads a class-conditional DiT (S, B, L or XL, any patch size) from diffusion_models or "
                        "checkpoints: the original's .pt or .safetensors, or diffusers' weights.",
            inputs=[
                io.Combo.Input("model_name", options=_names(), tooltip="tiny_dit.safetensors comes with this pack: 80 "
                               "classes of simple drawings, 32 × 32 pixels, for the pixel_space VAE."),
                io.Combo.Input("weight_dtype", options=list(DTYPES), default="default",
                               tooltip="What the weights are held in. default: what ComfyUI thinks best here."),
            ],
            outputs=[io.Model.Output(tooltip="The DiT, for a sampler or a cache node.")],
        )

    @classmethod
    def execute(cls, model_name, weight_dtype) -> io.NodeOutput:
        return io.NodeOutput(load_dit(_path(model_name), DTYPES[weight_dtype]))
