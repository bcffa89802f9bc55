"""TripoSplat: its points and its cameras."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="TripoSplat",
    matches=of_class("comfy.ldm.triposplat.model.LatentSeqMMFlowModel"),
    heads=("out_layer", "cam_out_layer"),
    blocks=("noise_refiner", "context_refiner", "blocks"),
    tokens=lambda _model, _index, shape: shape[1],
    embedders=("adaLN_modulation?", "cam_refiner", "cond_embedder", "input_layer", "t_embedder"),
)
