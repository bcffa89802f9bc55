"""Wan Dancer: Wan with one head for its frame rate and one for all others."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Wan Dancer",
    matches=of_class("comfy.ldm.wan.model_wandancer.WanDancerModel"),
    heads=("head or head_global",),
    blocks=("blocks",),
    embedders=(
        "img_emb?", "img_emb_refimage", "music_encoder", "music_projection", "music_rope_embedder", "patch_embedding",
        "patch_embedding_global", "rope_embedder", "text_embedding", "time_projection",
    ),
)
