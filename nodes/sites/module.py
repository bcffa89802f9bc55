"""Site module, the papers': what each attention and MLP adds to a block, before its gate.

A predicted step computes the gates of its own timestep afresh and adds gate · forecast, block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..families import BlockList, Branch, Family
from .base import AbstractSite, Forecasts, Keep, SampleSize, hooked, width

Ranges: TypeAlias = Sequence[tuple[int, int | None, int]]
"""Tokens from, to (None: the last), and which of the gates is theirs."""


class ModuleSite(AbstractSite):
    needs_control = True

    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return tuple(_name(blocks, i, branch) for blocks, i, _, branch in _branches(model, family))

    def needless(self, family: Family) -> tuple[str, ...]:
        return family.positions

    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        tokens = 0
        for blocks, _, _, branch in _branches(model, family):
            own = sample.text if branch.state == "txt" else sample.image
            tokens += sample.image + sample.text if blocks.joint else own
        return tokens * width(model.get_submodule(family.heads[0]))

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        def seen(name: str) -> Callable[..., None]:
            return lambda _module, _args, output: keep(name, output)

        handles = [
            block.get_submodule(branch.module).register_forward_hook(seen(_name(blocks, i, branch)))
            for blocks, i, block, branch in _branches(model, family)
        ]
        with hooked(*handles):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> Iterator[dict[str, Any]]:
        replaced = dict(options.get("patches_replace", {}))
        replaced["dit"] = replaced.get("dit", {}) | {
            (blocks.key, i): _replacement(blocks, i, block, forecasts)
            for blocks in family.modules for i, block in enumerate(model.get_submodule(blocks.path))
        }
        yield {**options, "patches_replace": replaced}


def _branches(model: nn.Module, family: Family) -> Iterator[tuple[BlockList, int, nn.Module, Branch]]:
    for blocks in family.modules:
        for i, block in enumerate(model.get_submodule(blocks.path)):
            for branch in blocks.branches:
                yield blocks, i, block, branch


def _name(blocks: BlockList, index: int, branch: Branch) -> str:
    return f"{blocks.path}.{index}.{branch.module}"


def _replacement(blocks: BlockList, index: int, block: nn.Module,
                 forecasts: Forecasts) -> Callable[..., dict[str, Tensor]]:
    def replacement(args: dict[str, Any], _extra: dict[str, Any]) -> dict[str, Tensor]:
        states: dict[str, Tensor] = {name: args[name] for name in blocks.states}
        for branch, gate in zip(blocks.branches, blocks.gates(block, args), strict=True):
            name, state = _name(blocks, index, branch), states[branch.state]
            ranges = args.get(f"modulation_dims_{branch.state}", args.get("modulation_dims"))
            if ranges is None:
                states[branch.state] = forecasts.added(name, state, gate)
            else:
                states[branch.state] = state + _gated(forecasts.of(name), gate, ranges)
        if state.dtype == torch.float16:  # hosts keep float16 states finite, block by block
            states = {name: torch.nan_to_num(state) for name, state in states.items()}
        return states

    return replacement


def _gated(addend: Tensor, gate: Tensor, ranges: Ranges) -> Tensor:
    """addend (B, tokens, D) times gate (B, gates, D), of which each of the ranges has one."""
    for start, end, which in ranges:
        addend[:, start:end] *= gate[:, which : which + 1]
    return addend
