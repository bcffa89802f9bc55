"""HiDream."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="HiDream",
    matches=of_class("comfy.ldm.hidream.model.HiDreamImageTransformer2DModel"),
    heads=("final_layer",),
    blocks=("double_stream_blocks", "single_stream_blocks"),
    embedders=("caption_projection", "pe_embedder", "x_embedder"),
)
