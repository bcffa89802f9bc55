"""The only arithmetic on features: weighted sums, norms and a check for NaN or infinity, each in one pass over memory.

float64 accumulates in float64, every other dtype in float32; a result is rounded once, to its inputs' dtype.
Nothing here reads a value back from the device, changes an argument (other than `out`) or returns one, and no gradient
passes through.

On a GPU with Triton one fused kernel does each (fused.py), elsewhere PyTorch's own operations do (eager.py). Both have
these functions; here one of the two is chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import eager
from .eager import Weight, empty_for_sum

__all__ = ["Weight", "add_gated", "combine", "compare", "empty_for_sum", "is_nonfinite", "transform"]

log = logging.getLogger(__name__)


def combine(weights: Sequence[Weight], stack: Tensor, out: Tensor | None = None) -> Tensor:
    """Σ weight · tensor over the tensors of a stack (K, B, ...): a fresh contiguous one, (B, ...), or `out`.

    A weight that is the number 0 leaves its tensor out (so that 0 · ∞ is 0); all zero gives zeros.
    """
    if out is None:
        out = torch.empty(stack.shape[1:], dtype=stack.dtype, device=stack.device)
    return (_fused(stack, out) or eager).combine(weights, stack, out)


def transform(rows: Sequence[Sequence[Weight]], stack: Tensor | None, feature: Tensor, reuse: bool = False) -> Tensor:
    """The update S ← A·S + b·F: a weighted sum of all tensors per row of (A | b), as the stack (rows, B, ...).

    stack S: (K, B, ...), or None before the first feature F, (B, ...).
    reuse: the result takes the place of S where it is as large. A must be lower triangular then: no row may use what
        comes after it in S, since rows are written from the last to the first.
    """
    feature = feature.detach()
    return (_fused(feature) or eager).transform(rows, stack, feature, reuse)


def add_gated(state: Tensor, gate: Tensor, weights: Sequence[Weight], stack: Tensor,
              out: Tensor | None = None) -> Tensor:
    """state + gate · Σ weight · tensor, fresh or as `out`: state (B, T, D), gate (B or 1, 1, D), stack (K, B, T, D).

    The forecast may be rounded before it is gated, as `combine` would, or not.
    """
    state, gate = state.detach(), gate.detach()
    out = empty_for_sum(state, gate, stack) if out is None else out
    one_row = gate.shape[-2:] == (1, state.shape[-1]) and gate.stride(-1) == 1
    engine = (_fused(state, stack, out) if one_row else None) or eager
    return engine.add_gated(state, gate, weights, stack, out)


def compare(weights: Sequence[Weight], stack: Tensor, feature: Tensor) -> Tensor:
    """How far the forecast Σ weight · tensor is from the feature F, (B, ...), without keeping it.

    ‖F‖₂, ‖forecast‖₂ and ‖forecast − F‖₂ of each sample: (3, B), in float32 or better.
    """
    feature = feature.detach()
    return (_fused(feature, stack) or eager).compare(weights, stack, feature)


def is_nonfinite(feature: Tensor) -> Tensor:
    """A boolean scalar on the feature's device: is there a NaN or an infinity in it? One reduction, no copy."""
    feature = feature.detach()
    if not feature.numel():
        return torch.zeros((), dtype=torch.bool, device=feature.device)
    return (_fused(feature) or eager).is_nonfinite(feature)


def _fused(*tensors: Tensor) -> Any:
    """The fused kernels, where they work on these tensors: alike, contiguous and on a GPU with a working Triton."""
    first = tensors[0]
    if not first.is_cuda or first.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not first.numel():
        return None
    if not all(tensor.is_contiguous() and tensor.dtype == first.dtype for tensor in tensors):
        return None
    fused = _fused_kernels()
    return fused if fused and fused.works_on(first.device, first.dtype) else None


@cache
def _fused_kernels() -> Any:
    try:
        from . import fused
    except ImportError as error:
        log.info("forecasts on the GPU are not fused, and slower: %s", error)
        return None
    return fused
