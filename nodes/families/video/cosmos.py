"""Cosmos: Predict2, and Anima, which is built on it."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Cosmos Predict2",
    matches=of_class(
        "comfy.ldm.cosmos.predict2.MiniTrainDIT",
        "comfy.ldm.anima.model.Anima",
    ),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("pos_embedder", "x_embedder"),
    patch="patch_spatial",
)
