"""What the kernels do, by PyTorch's own operations: on one part of the features after another, so small that what they
hand on to each other stays in the processor's caches. Functions are those of kernels/__init__.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Weight: TypeAlias = float | Tensor
"""A scalar, or one number per sample: a tensor (B,) on the features' device."""

FLOAT16_MAX = torch.finfo(torch.float16).max
PART_OF_A_THREAD = 1 << 18  # numbers: 1 MB in float32, about a core's own cache
PART_OF_A_GPU = 1 << 22


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def combine(weights: Sequence[Weight], stack: Tensor, out: Tensor) -> Tensor:
    for part in _parts(out):
        _sum_into(out[part], weights, [tensor[part] for tensor in stack])
    return out


def transform(rows: Sequence[Sequence[Weight]], stack: Tensor | None, feature: Tensor, reuse: bool = False) -> Tensor:
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


def add_gated(state: Tensor, gate: Tensor, weights: Sequence[Weight], stack: Tensor, out: Tensor) -> Tensor:
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
    lowest, highest = torch.aminmax(feature)  # both are NaN if there is one
    return ~(torch.isfinite(lowest) & torch.isfinite(highest))


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
