"""LTX-2: video and sound."""

from __future__ import annotations

import math

from .. import Family, of_class

FAMILY = Family(
    name="LTXAV",
    matches=of_class("comfy.ldm.lightricks.av_model.LTXAVModel"),
    heads=("norm_out", "audio_norm_out"),
    blocks=("transformer_blocks",),
    embedders=(
        "adaln_single.linear", "audio_adaln_single.linear", "audio_caption_projection?", "audio_patchify_proj",
        "audio_prompt_adaln_single?",
        "av_ca_a2v_gate_adaln_single", "av_ca_audio_scale_shift_adaln_single", "av_ca_v2a_gate_adaln_single",
        "av_ca_video_scale_shift_adaln_single", "caption_projection?", "patchify_proj",
        "prompt_adaln_single?",
    ),
    # An audio has one for each of its moments.
    tokens=lambda _, index, shape: shape[2] if index else math.prod(shape[2:]),
)
