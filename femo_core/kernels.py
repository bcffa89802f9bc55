"""The only arithmetic on features: weighted sums, norms and a check for NaN or infinity, each in one pass over memory.

float64 accumulates in float64, every other dtype in float32; a result is rounded once, to its inputs' dtype.
Nothing here reads a value back from the device, changes an argument (other than `out`) or returns one, and no gradient
passes through.

On a GPU with Triton one fused kernel does each (fused.py). Elsewhere PyTorch's own operations do, on one part of the
features after another, so small that what they hand on to each other stays in the processor's caches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

Weight: TypeAlias = float | Tensor
"""A scalar, or one number per sample: a tensor (B,) on the features' device."""

FLOAT16_MAX = torch.finfo(torch.float16).max
PART_OF_A_THREAD = 1 << 18  # numbers: 1 MB in float32, about a core's own cache
PART_OF_A_GPU = 1 << 22

log = logging.getLogger(__name__)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def combine(weights: Sequence[Weight], stack: Tensor, out: Tensor | None = None) -> Tensor:
    """Σ weight · tensor over the tensors of a stack (K, B, ...): a fresh contiguous one, (B, ...), or `out`.

    A weight that is the number 0 leaves its tensor out (so that 0 · ∞ is 0); all zero gives zeros.
    """
    if out is None:
        out = torch.empty(stack.shape[1:], dtype=stack.dtype, device=stack.device)
    if fused := _fused(stack, out):
        return fused.combine(weights, stack, out)
    for part in _parts(out):
        _sum_into(out[part], weights, [tensor[part] for tensor in stack])
    return out


def transform(rows: Sequence[Sequence[Weight]], stack: Tensor | None, feature: Tensor, reuse: bool = False) -> Tensor:
    """The update S ← A·S + b·F: a weighted sum of all tensors per row of (A | b), as the stack (rows, B, ...).

    stack S: (K, B, ...), or None before the first feature F, (B, ...).
    reuse: the result takes the place of S where it is as large. A must be lower triangular then: no row may use what
        comes after it in S, since rows are written from the last to the first.
    """
    feature = feature.detach()
    if fused := _fused(feature):
        return fused.transform(rows, stack, feature, reuse)
    out = room_for(len(rows), stack, feature, reuse)
    tensors = [feature] if stack is None else [*stack, feature]
    for part in _parts(feature):
        views = [tensor[part] for tensor in tensors]
        for weights, result in reversed([*zip(rows, out, strict=True)]):
            target = result[part]
            total = torch.empty_like(target) if out is stack else target
            _sum_into(total, weights, views)
            if out is stack:
                target.copy_(total)
    return out


def room_for(rows: int, stack: Tensor | None, feature: Tensor, reuse: bool) -> Tensor:
    """(rows, B, ...): new, or the stack's."""
    if reuse and stack is not None and len(stack) == rows:
        return stack
    return torch.empty((rows, *feature.shape), dtype=feature.dtype, device=feature.device)


def add_gated(state: Tensor, gate: Tensor, weights: Sequence[Weight], stack: Tensor,
              out: Tensor | None = None) -> Tensor:
    """state + gate · Σ weight · tensor, fresh or as `out`: state (B, T, D), gate (B or 1, 1, D), stack (K, B, T, D).

    The forecast may be rounded before it is gated, as `combine` would, or not.
    """
    state, gate = state.detach(), gate.detach()
    out = empty_for_sum(state, gate, stack) if out is None else out
    if gate.shape[-2:] == (1, state.shape[-1]) and gate.stride(-1) == 1 and (fused := _fused(state, stack, out)):
        return fused.add_gated(state, gate, weights, stack, out)
    gates = gate.expand_as(state)
    for part in _parts(out):
        forecast = torch.empty(out[part].shape, dtype=stack.dtype, device=out.device)
        _sum_into(forecast, weights, [tensor[part] for tensor in stack])
        torch.addcmul(state[part], gates[part], forecast, out=out[part])
    return out


def empty_for_sum(state: Tensor, *others: Tensor) -> Tensor:
    """As the state, but of the dtype that PyTorch gives its sum with the others."""
    dtype = state.dtype
    for other in others:
        if other.dtype != dtype:
            dtype = torch.promote_types(dtype, other.dtype)
    return torch.empty(state.shape, dtype=dtype, device=state.device)


def compare(weights: Sequence[Weight], stack: Tensor, feature: Tensor) -> Tensor:
    """How far the forecast Σ weight · tensor is from the feature F, (B, ...), without keeping it.

    ‖F‖₂, ‖forecast‖₂ and ‖forecast − F‖₂ of each sample: (3, B), in float32 or better.
    """
    feature = feature.detach()
    if fused := _fused(feature, stack):
        return fused.compare(weights, stack, feature)
    wide = accumulation_dtype(feature.dtype)
    squares = torch.zeros((3, feature.shape[0]), dtype=wide, device=feature.device)
    for part in _parts(feature):
        truth = feature[part].to(wide)
        forecast = torch.empty(truth.shape, dtype=wide, device=truth.device)
        _sum_into(forecast, weights, [tensor[part] for tensor in stack])
        squares[0] += _squared_norms(truth)
        squares[1] += _squared_norms(forecast)
        squares[2] += _squared_norms(forecast.sub_(truth))
    return squares.sqrt_()


def is_nonfinite(feature: Tensor) -> Tensor:
    """A boolean scalar on the feature's device: is there a NaN or an infinity in it? One reduction, no copy."""
    feature = feature.detach()
    if not feature.numel():
        return torch.zeros((), dtype=torch.bool, device=feature.device)
    if fused := _fused(feature):
        return fused.is_nonfinite(feature)
    lowest, highest = torch.aminmax(feature)  # both are NaN if there is one
    return ~(torch.isfinite(lowest) & torch.isfinite(highest))


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


def _parts(like: Tensor) -> Iterator[Any]:
    """Indices of one part after the other of all samples (B, ...)."""
    size = PART_OF_A_THREAD * torch.get_num_threads() if like.device.type == "cpu" else PART_OF_A_GPU
    long = next((dim for dim in range(1, like.ndim) if like.shape[dim] > 1), None)
    if long is None or like.numel() <= size:
        yield ...
        return
    length = max(1, size * like.shape[long] // like.numel())
    for start in range(0, like.shape[long], length):
        yield (*[slice(None)] * long, slice(start, start + length))


def _sum_into(out: Tensor, weights: Sequence[Weight], tensors: Sequence[Tensor]) -> None:
    """Σ weight · tensor, rounded once."""
    terms = [(w, t) for w, t in zip(weights, tensors, strict=True) if isinstance(w, Tensor) or w != 0.0]
    if not terms:
        out.zero_()
        return
    (weight, tensor), *rest = terms
    plain = not isinstance(weight, Tensor) and weight == 1.0
    if plain and not rest:
        out.copy_(tensor)
        return
    wide = accumulation_dtype(tensor.dtype)
    total = out if out.dtype == wide else torch.empty(out.shape, dtype=wide, device=out.device)
    if plain and tensor.dtype == wide and not isinstance(scale := rest[0][0], Tensor):
        torch.add(tensor, rest[0][1], alpha=scale, out=total)  # one operation for what O = 1 forecasts
        rest = rest[1:]
    else:
        total.copy_(tensor)
        if not plain:
            total.mul_(_column(weight, total) if isinstance(weight, Tensor) else weight)
    for weight, tensor in rest:
        if isinstance(weight, Tensor):
            total.addcmul_(tensor.to(wide), _column(weight, total))
        else:
            total.add_(tensor, alpha=weight)
    if out.dtype == torch.float16:  # a forecast beyond its range must not become an infinity
        total.clamp_(-FLOAT16_MAX, FLOAT16_MAX)
    if total is not out:
        out.copy_(total)


def _column(weight: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), as many dimensions as its neighbour has."""
    return weight.view(-1, *(1,) * (like.ndim - 1))


def _squared_norms(values: Tensor) -> Tensor:
    """Of each sample: (B, ...) -> (B,). Row by row, which several threads can share."""
    return torch.linalg.vector_norm(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        values, dim=-1, keepdim=True).square().flatten(1).sum(1)
