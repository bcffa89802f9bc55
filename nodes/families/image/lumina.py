"""Lumina2 and Z-Image."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Lumina2",
    matches=of_class("comfy.ldm.lumina.model.NextDiT"),
    heads=("final_layer",),
    heads_see_text=True,
    blocks=("context_refiner", "noise_refiner", "layers"),
    embedders=("cap_embedder", "rope_embedder", "x_embedder"),
    pads_to="pad_tokens_multiple",
)
