"""Mochi."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Mochi",
    matches=of_class("comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint"),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("t5_yproj?", "x_embedder"),
)
