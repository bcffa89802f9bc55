"""DiT: S, B, L and XL (nodes/dit)."""

from __future__ import annotations

from ..dit.model import DiT
from . import BlockList, Branch, Family

FAMILY = Family(
    name="DiT",
    matches=lambda diffusion_model: isinstance(diffusion_model, DiT),
    head="final_layer",
    block_lists=(
        BlockList("blocks", "double_block", ("img",), (
            Branch("attn", "img", "adaLN_modulation", 0),
            Branch("mlp", "img", "adaLN_modulation", 1),
        )),
    ),
)
