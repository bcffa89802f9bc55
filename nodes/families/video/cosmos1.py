"""Cosmos 1."""

from __future__ import annotations

from .. import PARTS_ARE_ROWS, Family, of_class

FAMILY = Family(
    name="Cosmos",
    matches=of_class("comfy.ldm.cosmos.model.GeneralDIT"),
    heads=("final_layer",),
    view=PARTS_ARE_ROWS,  # frames
    blocks=("blocks",),
    embedders=("extra_pos_embedder?", "pos_embedder", "x_embedder"),
    patch="patch_spatial",
)
