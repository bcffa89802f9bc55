"""PixelDiT: its hidden rows are patches, (B · patches, pixels, D)."""

from __future__ import annotations

from .. import PARTS_ARE_ROWS, Family, of_class

FAMILY = Family(
    name="PixelDiT",
    matches=of_class("comfy.ldm.pixeldit.model.PixDiT_T2I"),
    heads=("final_layer",),
    view=PARTS_ARE_ROWS,
    blocks=("patch_blocks", "pixel_blocks"),
    embedders=("pixel_embedder", "s_embedder", "t_embedder", "y_embedder"),
    patch="",
)
