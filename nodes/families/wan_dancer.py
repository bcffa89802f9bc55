"""Wan Dancer: Wan with one head for its frame rate and one for all others."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="Wan Dancer",
    matches=of_class("comfy.ldm.wan.model_wandancer.WanDancerModel"),
    heads=("head or head_global",),
    blocks=("blocks",),
)
