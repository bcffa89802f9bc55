"""Hunyuan3D 2."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Hunyuan3D",
    matches=of_class("comfy.ldm.hunyuan3d.model.Hunyuan3Dv2"),
    heads=("final_layer",),
    blocks=("double_blocks", "single_blocks"),
    embedders=("cond_in", "latent_in"),
)
