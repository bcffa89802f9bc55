"""Ideogram 4."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Ideogram 4",
    matches=of_class("comfy.ldm.ideogram4.model.Ideogram4Transformer2DModel"),
    heads=("final_layer",),
    heads_see_text=True,
    blocks=("layers",),
    embedders=("embed_image_indicator", "input_proj", "llm_cond_norm", "llm_cond_proj"),
    patch="",
)
