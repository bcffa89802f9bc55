"""Chroma: Flux whose modulations come from one network for all blocks."""

from __future__ import annotations

from .. import Family, of_class
from .flux import GIVEN_MODULATION, PATHS

FAMILY = Family(
    name="Chroma",
    matches=of_class("comfy.ldm.chroma.model.Chroma"),
    heads=("final_layer",),
    blocks=PATHS,
    embedders=("img_in", "pe_embedder", "txt_in"),
    image_embedder="img_in",
    modules=GIVEN_MODULATION,
)
