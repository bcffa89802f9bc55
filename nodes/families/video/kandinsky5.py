"""Kandinsky 5: image and video."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Kandinsky5",
    matches=of_class("comfy.ldm.kandinsky5.model.Kandinsky5"),
    heads=("out_layer",),
    blocks=("text_transformer_blocks", "visual_transformer_blocks"),
    embedders=("rope_embedder_1d", "rope_embedder_3d", "text_embeddings", "visual_embeddings"),
)
