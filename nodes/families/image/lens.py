"""Lens."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Lens",
    matches=of_class("comfy.ldm.lens.model.LensTransformer2DModel"),
    heads=("norm_out",),
    blocks=("transformer_blocks",),
    embedders=("img_in", "pos_embed", "txt_in", "txt_norm"),
    patch="",
)
