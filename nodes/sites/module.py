"""Site module, the papers': what each attention and MLP adds to a block, before its gate.

A predicted step computes the gates of its own timestep afresh and adds gate · forecast, block by block. The papers
forecast what is added to a double block's text state, too; nothing that leaves the network depends on it then, so that
here it is neither recorded nor forecast. Nor need a text be embedded: its tokens hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..families import BlockList, Family
from ..reach import Handle
from .base import AbstractSite, Forecasts, Keep, SampleSize, hooked, replaced, width

Ranges: TypeAlias = Sequence[tuple[int, int | None, int]]
"""Tokens from, to (None: the last), and which of the gates is theirs."""


class ModuleSite(AbstractSite):
    needs_control = True

    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return tuple(_name(blocks, i, branch) for blocks, i, _, branch in _branches(model, family))

    def needless(self, family: Family) -> tuple[str, ...]:
        return tuple(path for path in family.needless if path != family.image_embedder)

    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        tokens = 0
        for blocks, _, _, _ in _branches(model, family):
            tokens += sample.image + sample.text if blocks.joint else sample.image
        return tokens * width(model.get_submodule(family.heads[0]))

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        def seen(name: str) -> Callable[..., None]:
            return lambda _module, _args, output: keep(name, output)

        handles = [
            block.get_submodule(branch).register_forward_hook(seen(_name(blocks, i, branch)))
            for blocks, i, block, branch in _branches(model, family)
        ]
        with hooked(*handles):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> Iterator[dict[str, Any]]:
        patches = dict(options.get("patches_replace", {}))
        patches["dit"] = patches.get("dit", {}) | {
            (blocks.key, i): _Replacement(blocks, i, block, forecasts)
            for blocks in family.modules for i, block in enumerate(model.get_submodule(blocks.path))
        }
        yield {**options, "patches_replace": patches}


def _branches(model: nn.Module, family: Family) -> Iterator[tuple[BlockList, int, nn.Module, str]]:
    for blocks in family.modules:
        for i, block in enumerate(model.get_submodule(blocks.path)):
            for branch in blocks.branches:
                yield blocks, i, block, branch


def _name(blocks: BlockList, index: int, branch: str) -> str:
    return f"{blocks.path}.{index}.{branch}"


def _ranges(block: nn.Module, args: dict[str, Any], original_block: Callable[..., Any]) -> Ranges:
    """As the host gives them to a block, where it knows two timesteps at once (reference images, first frames).

    A replacement is not told of them by every version and model.
    """
    given: dict[str, Any] = {}

    def noting(*_: Any, **kwargs: Any) -> tuple[None, None]:
        given.update(kwargs)
        return None, None

    with replaced(block, "forward", noting):
        original_block(args)
    return given["modulation_dims_img"] if "modulation_dims_img" in given else given["modulation_dims"]


def _gated(addend: Tensor, gate: Tensor, ranges: Ranges) -> Tensor:
    """addend (B, tokens, D) times gate (B, gates, D), of which each of the ranges has one."""
    for start, end, which in ranges:
        addend[:, start:end] *= gate[:, which : which + 1]
    return addend


class _Replacement(Handle):
    """Adds a block's forecasts, of one call. Pickled, it is one that runs the block."""

    def __init__(self, *held: Any):
        super().__init__(held)

    def __call__(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        if not self.held:
            return extra["original_block"](args)
        blocks, index, block, forecasts = self.held
        img, gates = args["img"], blocks.gates(block, args)
        ranges = _ranges(block, args, extra["original_block"]) if gates[0].shape[1] > 1 else None
        for branch, gate in zip(blocks.branches, gates, strict=True):
            name = _name(blocks, index, branch)
            img = (forecasts.added(name, img, gate) if ranges is None
                   else img + _gated(forecasts.of(name), gate, ranges))
        if img.dtype == torch.float16:  # hosts keep float16 states finite, block by block
            img = torch.nan_to_num(img)
        return {"img": img, "txt": args["txt"]} if "txt" in args else {"img": img}
