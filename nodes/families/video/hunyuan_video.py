"""HunyuanVideo and its kin: text and image to video, 1.5, HunyuanImage and its refiner."""

from __future__ import annotations

from .. import Family, of_class
from ..flux_kin.flux import OWN_MODULATION, PATHS

FAMILY = Family(
    name="HunyuanVideo",
    matches=of_class("comfy.ldm.hunyuan_video.model.HunyuanVideo"),
    heads=("final_layer",),
    blocks=PATHS,
    embedders=("byt5_in?", "cond_type_embedding?", "img_in", "pe_embedder", "txt_in", "vision_in?"),
    image_embedder="img_in",
    modules=OWN_MODULATION,
)
