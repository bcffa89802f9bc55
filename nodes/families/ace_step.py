"""ACE-Step 1."""

from __future__ import annotations

from . import Family, of_class

FAMILY = Family(
    name="ACE-Step",
    matches=of_class("comfy.ldm.ace.model.ACEStepTransformer2DModel"),
    heads=("final_layer",),
    blocks=("transformer_blocks",),
)
