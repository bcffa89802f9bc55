"""Facts about diffusers' transformers, as data."""

from __future__ import annotations

from dataclasses import dataclass

HIDDEN = "hidden_states"
TEXT = "encoder_hidden_states"


@dataclass(frozen=True)
class BlockList:
    """A list of blocks that a transformer goes through, with the names of their modules and arguments.

    A module whose name ends in "?" may be missing in a block.
    """

    path: str  # in the transformer
    states: tuple[str, ...]  # arguments of a block that it returns, in this order
    branches: tuple[str, ...]  # its modules whose outputs, the first where there are several, are added to the image
    needless: tuple[str, ...] = ()  # its modules that work for such a branch, or for the text, alone


# Class of a transformer -> its lists of blocks, in the order in which it goes through them. The last block of all
# returns what the head takes.
FAMILIES: dict[str, tuple[BlockList, ...]] = {
    "DiTTransformer2DModel": (BlockList("transformer_blocks", (HIDDEN,), ("attn1", "ff")),),
    "FluxTransformer2DModel": (
        BlockList("transformer_blocks", (TEXT, HIDDEN), ("attn", "ff"), ("ff_context",)),
        BlockList("single_transformer_blocks", (TEXT, HIDDEN), ("proj_out",), ("attn", "proj_mlp", "act_mlp")),
    ),
    "HunyuanVideoTransformer3DModel": (
        BlockList("transformer_blocks", (HIDDEN, TEXT), ("attn", "ff"), ("ff_context",)),
        BlockList("single_transformer_blocks", (HIDDEN, TEXT), ("proj_out",), ("attn", "proj_mlp", "act_mlp")),
    ),
    "QwenImageTransformer2DModel": (
        BlockList("transformer_blocks", (TEXT, HIDDEN), ("attn", "img_mlp"), ("txt_mlp",)),
    ),
    "SD3Transformer2DModel": (
        BlockList("transformer_blocks", (TEXT, HIDDEN), ("attn", "attn2?", "ff"), ("ff_context?",)),
    ),
    "WanTransformer3DModel": (BlockList("blocks", (HIDDEN,), ("attn1", "attn2", "ffn")),),
}
