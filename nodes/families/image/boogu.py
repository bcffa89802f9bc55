"""Boogu."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Boogu",
    matches=of_class("comfy.ldm.boogu.model.BooguTransformer2DModel"),
    heads=("norm_out",),
    heads_see_text=True,
    blocks=(
        "context_refiner", "noise_refiner", "ref_image_refiner", "double_stream_layers", "single_stream_layers",
    ),
    embedders=("ref_image_patch_embedder", "time_caption_embed.caption_embedder", "x_embedder"),
)
