"""The U-Nets of Stable Diffusion 1.5, 2 and XL."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="U-Net",
    matches=of_class("comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel"),
    heads=("out",),
    blocks=("input_blocks", "middle_block", "output_blocks"),
    embedders=("label_emb?", "time_embed"),
)
