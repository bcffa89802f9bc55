"""HiDream-O1: a language model that draws."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="HiDream-O1",
    matches=of_class("comfy.ldm.hidream_o1.model.HiDreamO1Transformer"),
    heads=("final_layer2",),
    blocks=("language_model.layers",),
    embedders=("t_embedder1", "x_embedder"),
)
