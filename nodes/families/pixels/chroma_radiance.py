"""Chroma Radiance."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Chroma Radiance",
    matches=of_class("comfy.ldm.chroma_radiance.model.ChromaRadiance"),
    at_output="its head goes over an image's patches in tiles, as many calls as they need",
)
