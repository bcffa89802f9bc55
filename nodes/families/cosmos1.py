"""Cosmos 1."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="Cosmos",
    matches=of_class("comfy.ldm.cosmos.model.GeneralDIT"),
    heads=("final_layer",),
    blocks=("blocks",),
    patch="patch_spatial",
)
