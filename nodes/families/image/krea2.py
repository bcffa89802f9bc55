"""Krea 2."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Krea 2",
    matches=of_class("comfy.ldm.krea2.model.SingleStreamDiT"),
    heads=("last",),
    patch="patch",
    heads_see_text=True,
    blocks=("txtfusion.layerwise_blocks", "txtfusion.refiner_blocks", "blocks"),
    embedders=("first", "pe_embedder", "tproj", "txtfusion", "txtmlp"),
)
