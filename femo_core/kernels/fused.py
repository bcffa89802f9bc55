"""What the kernels do, on a GPU: one Triton kernel each, which reads every tensor from memory once.

Import it only where Triton is: it comes with PyTorch for CUDA and ROCm on Linux, not on Windows. All tensors are
contiguous, on one GPU and of one dtype: float32, bfloat16 or float16. Functions are those of kernels/__init__.py.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import eager
from .eager import FLOAT16_MAX, Weight, room_for

BLOCK = 1024  # numbers of one program

log = logging.getLogger(__name__)


@cache
def works_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels give there what PyTorch's own operations do: found out once, which waits for the device.

    Triton needs a C compiler and a GPU that is new enough. FEMO_EAGER=1 in the environment says no.
    """
    if os.environ.get("FEMO_EAGER", "0") not in ("", "0"):
        return False
    try:
        prove(device, dtype)
    except Exception as error:  # whatever it is, PyTorch's own operations serve
        log.warning("forecasts on %s are not fused, and slower: Triton does not work there: %s", device, error)
        return False
    return True


def prove(device: torch.device, dtype: torch.dtype) -> None:
    """Raises if a kernel does not give on a device what eager.py does on the CPU, for a few numbers."""
    def results(engine: Any, on: torch.device) -> list[Tensor]:
        stack = torch.linspace(-2.0, 2.0, 2 * 2 * 3 * 64).view(2, 2, 3, 64).to(on, dtype)
        state, gate, weights = stack[0].flip(-1).contiguous(), stack[1, :, :1], [1.0, torch.tensor([0.5, -1.5]).to(on)]
        return [
            engine.combine(weights, stack, torch.empty_like(state)),
            engine.transform([[0.0, 0.0, 1.0], [*weights, 0.25]], stack.clone(), state, reuse=True),
            engine.add_gated(state, gate, weights, stack, torch.empty_like(state)),
            engine.compare(weights, stack, state), *map(engine.is_nonfinite, (stack, stack / 0))]

    for found, right in zip(results(sys.modules[__name__], device), results(eager, torch.device("cpu")), strict=True):
        torch.testing.assert_close(found.cpu(), right)


def combine(weights: Sequence[Weight], stack: Tensor, out: Tensor) -> Tensor:
    return _weigh([weights], stack, None, out[None])[0]


def transform(rows: Sequence[Sequence[Weight]], stack: Tensor | None, feature: Tensor, reuse: bool = False) -> Tensor:
    return _weigh(rows, stack, feature, room_for(len(rows), stack, feature, reuse))


def _weigh(rows: Sequence[Sequence[Weight]], stack: Tensor | None, feature: Tensor | None, out: Tensor) -> Tensor:
    """out (R, B, ...): per row a weighted sum of the stack (K, B, ...) and, last, the feature (B, ...)."""
    samples, size = out.shape[1], out[0, 0].numel()
    table = _table(rows, samples, out.device)
    limit = FLOAT16_MAX if out.dtype == torch.float16 else 0.0
    with torch.cuda.device_of(out):
        _weighted_sums[(triton.cdiv(size, BLOCK), samples)](
            out if stack is None else stack, out if feature is None else feature, table, out, size, samples * size,
            _sample_stride(table), known=0 if stack is None else len(stack), new=int(feature is not None),
            rows=len(rows), limit=limit, block=BLOCK)
    return out


def add_gated(state: Tensor, gate: Tensor, weights: Sequence[Weight], stack: Tensor, out: Tensor) -> Tensor:
    samples, size = out.shape[0], out[0].numel()
    table = _table([weights], samples, out.device)
    with torch.cuda.device_of(out):
        _add_gated[(triton.cdiv(size, BLOCK), samples)](
            state, gate, stack, table, out, size, samples * size, out.shape[-1], _sample_stride(gate),
            _sample_stride(table), known=len(stack), block=BLOCK)
    return out


def compare(weights: Sequence[Weight], stack: Tensor, feature: Tensor) -> Tensor:
    samples, size = feature.shape[0], feature[0].numel()
    table, blocks = _table([weights], samples, feature.device), triton.cdiv(size, BLOCK)
    squares = torch.empty((3, samples, blocks), dtype=torch.float32, device=feature.device)
    with torch.cuda.device_of(feature):
        _compare[(blocks, samples)](
            feature, stack, table, squares, size, samples * size, samples * blocks, _sample_stride(table),
            known=len(stack), block=BLOCK)
    return squares.sum(-1).sqrt_()


def is_nonfinite(feature: Tensor) -> Tensor:
    found = torch.zeros((), dtype=torch.bool, device=feature.device)
    with torch.cuda.device_of(feature):
        _is_nonfinite[(triton.cdiv(feature.numel(), BLOCK),)](feature, found, feature.numel(), block=BLOCK)
    return found


def _table(rows: Sequence[Sequence[Weight]], samples: int, device: torch.device) -> Tensor:
    """Weights as float32 on the device, (1, R, K), or (B, R, K) where one is per sample."""
    constants = tuple(tuple(0.0 if isinstance(weight, Tensor) else weight for weight in row) for row in rows)
    table = _constants(constants, device)
    adapted = [(r, k, w) for r, row in enumerate(rows) for k, w in enumerate(row) if isinstance(w, Tensor)]
    if adapted:
        table = table.repeat(samples, 1, 1)
        for row, column, weight in adapted:
            table[:, row, column] = weight
    return table


@lru_cache(maxsize=256)
def _constants(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """All sites of a step share them. The copy waits for nothing."""
    table = torch.tensor([rows], dtype=torch.float32)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def _sample_stride(tensor: Tensor) -> int:
    return tensor.stride(0) if tensor.shape[0] > 1 else 0


# In the kernels: `size` numbers of a sample, `total` of a tensor; `table` the weights, by sample and row.


@triton.jit
def _block(size, block: tl.constexpr):
    """The program's sample, its numbers within the sample, and which of them there are."""
    offsets = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    return tl.program_id(1).to(tl.int64), offsets, offsets < size


@triton.jit
def _sum(stack, table, here, inside, total, known: tl.constexpr, block: tl.constexpr):
    """Σ weight · tensor of one block; where a weight is 0, 0 · ∞ is 0."""
    result = tl.zeros((block,), tl.float32)
    for index in tl.static_range(known):
        weight = tl.load(table + index)
        term = weight * tl.load(stack + here, mask=inside, other=0.0).to(tl.float32)
        result += tl.where(weight == 0.0, 0.0, term)
        here += total  # not index · total, which 32 bits may not hold
    return result


@triton.jit
def _store(out, here, values, inside, limit: tl.constexpr):
    if limit > 0.0:  # a forecast beyond float16's range must not become an infinity
        values = tl.where(values > limit, limit, tl.where(values < -limit, -limit, values))
    tl.store(out + here, values.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _weighted_sums(stack, feature, table, out, size, total, table_stride, known: tl.constexpr, new: tl.constexpr,
                   rows: tl.constexpr, limit: tl.constexpr, block: tl.constexpr):
    sample, offsets, inside = _block(size, block)
    here, table = sample * size + offsets, table + sample * table_stride
    place = here
    for _ in tl.static_range(rows - 1):
        place += total
    for index in tl.static_range(rows):  # what the second one reads again is still in the cache
        weights = table + (rows - 1 - index) * (known + new)
        result = _sum(stack, weights, here, inside, total, known, block)
        if new:
            result += _sum(feature, weights + known, here, inside, total, 1, block)
        _store(out, place, result, inside, limit)
        place -= total


@triton.jit
def _add_gated(state, gate, stack, table, out, size, total, width, gate_stride, table_stride, known: tl.constexpr,
               block: tl.constexpr):
    sample, offsets, inside = _block(size, block)
    here = sample * size + offsets
    forecast = _sum(stack, table + sample * table_stride, here, inside, total, known, block)
    factor = tl.load(gate + sample * gate_stride + offsets % width, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(state + here, mask=inside, other=0.0).to(tl.float32)
    _store(out, here, before + factor * forecast, inside, 0.0)


@triton.jit
def _compare(feature, stack, table, squares, size, total, partial, table_stride, known: tl.constexpr,
             block: tl.constexpr):
    sample, offsets, inside = _block(size, block)
    here = sample * size + offsets
    forecast = _sum(stack, table + sample * table_stride, here, inside, total, known, block)
    truth = tl.load(feature + here, mask=inside, other=0.0).to(tl.float32)
    error = forecast - truth
    place = squares + sample * tl.num_programs(0) + tl.program_id(0)
    tl.store(place, tl.sum(truth * truth))
    tl.store(place + partial, tl.sum(forecast * forecast))
    tl.store(place + 2 * partial, tl.sum(error * error))


@triton.jit
def _is_nonfinite(feature, found, total, block: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    values = tl.load(feature + offsets, mask=offsets < total, other=0.0).to(tl.float32)
    if tl.sum((values - values != 0.0).to(tl.int32)) > 0:  # of NaN and infinity it is NaN
        tl.store(found, True)
