"""What tells one architecture from another."""

from __future__ import annotations

import hashlib

from torch import nn


def digest_of_shapes(network: nn.Module) -> str:
    """Of its weight matrices. Values, names and dtypes do not count, nor does how they are quantised as long as shapes
    stay: a LoRA, a merge, a finetune or fp8 weights make no other model."""
    shapes = sorted(tuple(weight.shape) for weight in network.parameters() if weight.ndim > 1)
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]
