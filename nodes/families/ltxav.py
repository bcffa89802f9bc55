"""LTX-2: video and sound."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="LTXAV",
    matches=of_class("comfy.ldm.lightricks.av_model.LTXAVModel"),
    heads=("norm_out", "audio_norm_out"),
    blocks=("transformer_blocks",),
)
