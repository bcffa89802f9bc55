"""Qwen-Image 2.1: its head sees the image's tokens alone, whether what comes before them was remembered or not."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Qwen-Image 2.1",
    matches=of_class("comfy.ldm.qwen_image21.model.QwenImage21Transformer2DModel"),
    heads=("norm_out",),
    heads_see_references=False,
    blocks=("transformer_blocks",),
    embedders=("img_in", "modulation", "pe_embedder", "txt_in"),
    patch="",
)
