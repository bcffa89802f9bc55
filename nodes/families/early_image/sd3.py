"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="SD3",
    matches=of_class("comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper"),
    heads=("final_layer",),
    blocks=("joint_blocks",),
    embedders=("context_embedder", "x_embedder"),
)
