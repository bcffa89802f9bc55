"""ACE-Step 1."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="ACE-Step",
    matches=of_class("comfy.ldm.ace.model.ACEStepTransformer2DModel"),
    heads=("final_layer",),
    blocks=("transformer_blocks",),
    embedders=(
        "genre_embedder", "lyric_embs", "lyric_encoder", "lyric_proj", "proj_in", "rotary_emb", "speaker_embedder",
        "t_block",
    ),
)
