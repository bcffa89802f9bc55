"""ERNIE-Image."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="ERNIE-Image",
    matches=of_class("comfy.ldm.ernie.model.ErnieImageModel"),
    heads=("final_norm",),
    heads_see_text=True,
    blocks=("layers",),
    embedders=("adaLN_modulation", "pos_embed", "text_proj?", "x_embedder"),
)
