"""Hunyuan3D 2.1."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Hunyuan3D 2.1",
    matches=of_class("comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain"),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("t_embedder", "x_embedder"),
)
