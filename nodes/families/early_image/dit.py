"""DiT: S, B, L and XL (nodes/dit)."""

from __future__ import annotations

from ...dit.model import DiT
from .. import BlockList, Family

FAMILY = Family(
    name="DiT",
    matches=lambda _model, kind: issubclass(kind, DiT),
    heads=("final_layer",),
    blocks=("blocks",),
    embedders=("x_embedder",),
    image_embedder="x_embedder",
    modules=(
        BlockList(
            "blocks", "double_block", ("attn", "mlp"),
            gates=lambda block, args: tuple(part.gate for part in block.adaLN_modulation(args["vec"])),
        ),
    ),
)
