"""Stable Audio."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Stable Audio",
    matches=of_class("comfy.ldm.audio.dit.AudioDiffusionTransformer"),
    heads=("transformer.project_out",),
    blocks=("transformer.layers",),
    embedders=(
        "preprocess_conv", "timestep_features", "to_cond_embed?", "to_global_embed?", "to_timestep_embed",
        "transformer.global_cond_embedder?", "transformer.project_in",
    ),
)
