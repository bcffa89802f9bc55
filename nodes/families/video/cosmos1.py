"""Cosmos 1."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Cosmos",
    matches=of_class("comfy.ldm.cosmos.model.GeneralDIT"),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("extra_pos_embedder?", "pos_embedder", "x_embedder"),
    patch="patch_spatial",
)
