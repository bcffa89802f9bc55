"""The only arithmetic on features: weighted sums, norms and a check for NaN or infinity.

float64 accumulates in float64, every other dtype in float32; a result is rounded once, to its inputs' dtype.
Nothing here reads a value back from the device, changes an argument or returns one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Weight: TypeAlias = float | Tensor
"""A scalar, or one number per sample: a tensor (B,) on the features' device."""


FLOAT16_MAX = torch.finfo(torch.float16).max


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def combine(weights: Sequence[Weight], tensors: Sequence[Tensor]) -> Tensor:
    """Σ weight · tensor over tensors of one shape (B, ...) and dtype, as a fresh contiguous tensor.

    A weight that is the float 0 leaves its tensor out (so that 0 · ∞ is 0); all zero gives zeros.
    """
    terms = [(w, t) for w, t in zip(weights, tensors, strict=True) if isinstance(w, Tensor) or w != 0.0]
    if not terms:
        return torch.zeros_like(tensors[0], memory_format=torch.contiguous_format)
    (first_weight, first), *rest = terms
    if not rest and not isinstance(first_weight, Tensor) and first_weight == 1.0:
        return first.detach().clone(memory_format=torch.contiguous_format)  # exact, and one pass

    total = _times(first_weight, first)
    for weight, tensor in rest:
        if isinstance(weight, Tensor):
            total.addcmul_(tensor.detach().to(total.dtype), _per_sample(weight, tensor))
        else:
            total.add_(tensor.detach(), alpha=weight)
    if first.dtype == torch.float16:  # a forecast beyond its range must not become an infinity
        total.clamp_(-FLOAT16_MAX, FLOAT16_MAX)
    return total.to(first.dtype)


def transform(rows: Sequence[Sequence[Weight]], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One weighted sum of all `tensors` per row: the update S ← A·S + b·F, with (A | b) as rows, (S, F) as tensors."""
    return tuple(combine(row, tensors) for row in rows)


def norms(feature: Tensor) -> Tensor:
    """‖·‖₂ of each sample: (B, ...) -> (B,)."""
    rows = feature.detach().reshape(feature.shape[0], -1)
    return torch.linalg.vector_norm(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        rows, dim=1, dtype=accumulation_dtype(feature.dtype))


def relative_errors(forecast: Tensor, feature: Tensor) -> Tensor:
    """‖forecast − feature‖ / ‖feature‖ of each sample: (B, ...) twice -> (B,). NaN where both are 0."""
    wide = accumulation_dtype(feature.dtype)
    return norms(forecast.detach().to(wide) - feature.detach()) / norms(feature)


def is_nonfinite(feature: Tensor) -> Tensor:
    """A boolean scalar on the feature's device: is there a NaN or an infinity in it? One reduction, no copy."""
    if not feature.numel():
        return torch.zeros((), dtype=torch.bool, device=feature.device)
    lowest, highest = torch.aminmax(feature.detach())  # both are NaN if there is one
    return ~(torch.isfinite(lowest) & torch.isfinite(highest))


def _times(weight: Weight, tensor: Tensor) -> Tensor:
    wide = tensor.detach().to(accumulation_dtype(tensor.dtype), memory_format=torch.contiguous_format)
    return wide * (_per_sample(weight, tensor) if isinstance(weight, Tensor) else weight)


def _per_sample(weight: Tensor, tensor: Tensor) -> Tensor:
    return weight.view(-1, *(1,) * (tensor.ndim - 1))
