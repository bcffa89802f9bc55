"""PixArt alpha and sigma."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="PixArt",
    matches=of_class("comfy.ldm.pixart.pixartms.PixArtMS"),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("t_block", "x_embedder", "y_embedder"),
)
