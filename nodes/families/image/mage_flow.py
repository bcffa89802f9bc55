"""Mage-Flow."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Mage-Flow",
    matches=of_class("comfy.ldm.mage_flow.model.MageFlowTransformer2DModel"),
    heads=("norm_out",),
    blocks=("transformer_blocks",),
    embedders=("img_in", "pe_embedder", "txt_in", "txt_norm"),
)
