"""CogVideoX."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="CogVideoX",
    matches=of_class("comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel"),
    heads=("norm_final",),
    blocks=("blocks",),
    embedders=("patch_embed",),
)
