"""CogVideoX."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .. import Family, of_class


def tokens(model: nn.Module, _index: int, shape: Sequence[int]) -> int:
    patches = (model.patch_size_t or 1, model.patch_size, model.patch_size)
    return math.prod(math.ceil(side / patch) for side, patch in zip(shape[2:], patches, strict=True))


FAMILY = Family(
    name="CogVideoX",
    matches=of_class("comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel"),
    heads=("norm_final",),
    blocks=("blocks",),
    embedders=("patch_embed",),
    tokens=tokens,
)
