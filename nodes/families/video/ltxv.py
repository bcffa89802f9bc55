"""LTX-Video."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="LTXV",
    matches=of_class("comfy.ldm.lightricks.model.LTXVModel"),
    heads=("norm_out",),
    blocks=("transformer_blocks",),
    embedders=("adaln_single.linear", "caption_projection?", "patchify_proj", "prompt_adaln_single?"),
)
