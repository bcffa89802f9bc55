"""JoyImage."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="JoyImage",
    matches=of_class("comfy.ldm.joyimage.model.JoyImageTransformer3DModel"),
    heads=("norm_out",),
    heads_see_references=False,
    blocks=("double_blocks",),
    embedders=("condition_embedder", "img_in"),
)
