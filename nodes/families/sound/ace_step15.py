"""ACE-Step 1.5."""

from __future__ import annotations

import math

from .. import Family, of_class

FAMILY = Family(
    name="ACE-Step 1.5",
    matches=of_class("comfy.ldm.ace.ace_step15.AceStepConditionGenerationModel"),
    heads=("decoder.norm_out",),
    blocks=("decoder.layers",),
    embedders=("decoder.condition_embedder", "decoder.proj_in", "decoder.rotary_emb", "encoder"),
    tokens=lambda model, _, shape: math.ceil(shape[-1] / model.decoder.patch_size),
)
