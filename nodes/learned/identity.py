"""Which model it is, so that what was learned of it is found again, and another one's isn't used for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...femo_core.profiles.shapes import digest_of_shapes

PIECES, PIECE = 8, 16  # of a signature: so many weights, and numbers of each
ALIKE = 0.8  # correlation of two signatures of one model, at least; a finetune changes them by a few percent


def fingerprint(model: Any) -> str:
    """Of a BaseModel of ComfyUI: its class, latent format, kind of prediction, and shapes of its weight matrices."""
    digest = digest_of_shapes(model.diffusion_model)
    return f"{type(model).__name__}, {type(model.latent_format).__name__}, {model.model_type.name}, {digest}"


def signature(model: Any) -> tuple[float, ...]:
    """A few of its biases and norms, each piece at mean 0 and length 1: two models of one class and shape, as Wan 2.2's
    experts are, differ in them; a LoRA, quantised matrices and a finetune leave them about as they were.

    Empty for a model without any that can be read.
    """
    vectors = sorted((name, weight) for name, weight in model.diffusion_model.named_parameters()
                     if weight.ndim == 1 and weight.numel() >= PIECE)
    pieces: list[Tensor] = []
    for _, weight in vectors[:: max(1, len(vectors) // (4 * PIECES))]:
        try:
            piece = weight[:PIECE].detach().float().cpu()
        except (RuntimeError, NotImplementedError):  # not loaded yet, or kept in a form of its own
            continue
        piece = piece - piece.mean()
        if float(length := piece.norm()) > 1e-6 and bool(piece.isfinite().all()):
            pieces.append(piece / length)
        if len(pieces) == PIECES:
            break
    return tuple(round(value, 4) for value in torch.cat(pieces).tolist()) if pieces else ()


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two signatures may be of one model. Where one says nothing they may."""
    count = min(len(one), len(other)) // PIECE
    if count == 0:
        return True
    products = sum(a * b for a, b in zip(one[: count * PIECE], other[: count * PIECE], strict=True))
    return products / count >= ALIKE
