"""OmniGen2."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="OmniGen2",
    matches=of_class("comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel"),
    heads=("norm_out",),
    heads_see_text=True,
    blocks=("context_refiner", "noise_refiner", "ref_image_refiner", "layers"),
    embedders=("ref_image_patch_embedder", "time_caption_embed.caption_embedder", "x_embedder"),
)
