"""Stable Audio."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="Stable Audio",
    matches=of_class("comfy.ldm.audio.dit.AudioDiffusionTransformer"),
    heads=("transformer.project_out",),
    blocks=("transformer.layers",),
)
