"""Qwen-Image and Qwen-Image-Edit."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Qwen-Image",
    matches=of_class("comfy.ldm.qwen_image.model.QwenImageTransformer2DModel"),
    heads=("norm_out",),
    blocks=("transformer_blocks",),
    embedders=("img_in", "pe_embedder", "txt_in", "txt_norm"),
)
