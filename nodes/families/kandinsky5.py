"""Kandinsky 5: image and video."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="Kandinsky5",
    matches=of_class("comfy.ldm.kandinsky5.model.Kandinsky5"),
    heads=("out_layer",),
    blocks=("text_transformer_blocks", "visual_transformer_blocks"),
)
