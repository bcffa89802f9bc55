"""AuraFlow."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="AuraFlow",
    matches=of_class("comfy.ldm.aura.mmdit.MMDiT"),
    heads=("final_linear",),
    blocks=("double_layers", "single_layers"),
    embedders=("cond_seq_linear", "init_x_linear", "modF", "t_embedder"),
)
