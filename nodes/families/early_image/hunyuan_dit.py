"""HunyuanDiT."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="HunyuanDiT",
    matches=of_class("comfy.ldm.hydit.models.HunYuanDiT"),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("mlp_t5", "x_embedder"),
)
