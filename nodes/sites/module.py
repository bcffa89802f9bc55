"""Site module, the papers': what each attention and MLP adds to a block, before its gate.

A predicted step computes the gates of its own timestep afresh and adds gate · forecast, block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..families import BlockList, Branch, Family
from .base import AbstractSite, Forecast, hooked, with_replaced_blocks


class ModuleSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return tuple(_name(blocks, i, branch) for blocks, i, _, branch in _branches(model, family))

    @contextmanager
    def recording(self, model: nn.Module, family: Family, captured: dict[str, Tensor]) -> Iterator[None]:
        def keeper(name: str) -> Callable[..., None]:
            def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
                captured[name] = output.clone()

            return keep

        handles = [
            block.get_submodule(branch.module).register_forward_hook(keeper(_name(blocks, i, branch)))
            for blocks, i, block, branch in _branches(model, family)
        ]
        with hooked(*handles):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecast: Forecast) -> Iterator[dict[str, Any]]:
        replacements = {
            (blocks.key, i): _replacement(blocks, i, block, forecast)
            for blocks in family.block_lists for i, block in enumerate(model.get_submodule(blocks.attribute))
        }
        yield with_replaced_blocks(options, replacements)


def _branches(model: nn.Module, family: Family) -> Iterator[tuple[BlockList, int, nn.Module, Branch]]:
    for blocks in family.block_lists:
        for i, block in enumerate(model.get_submodule(blocks.attribute)):
            for branch in blocks.branches:
                yield blocks, i, block, branch


def _name(blocks: BlockList, index: int, branch: Branch) -> str:
    return f"{blocks.attribute}.{index}.{branch.module}"


def _replacement(blocks: BlockList, index: int, block: nn.Module,
                 forecast: Forecast) -> Callable[..., dict[str, Tensor]]:
    def replacement(args: dict[str, Any], _extra: dict[str, Any]) -> dict[str, Tensor]:
        names = {branch.modulation for branch in blocks.branches}
        modulations = {name: block.get_submodule(name)(args["vec"]) for name in names}
        states: dict[str, Tensor] = {name: args[name] for name in blocks.states}
        for branch in blocks.branches:
            gate = modulations[branch.modulation][branch.part].gate  # (B, 1, D)
            states[branch.state] = states[branch.state] + gate * forecast(_name(blocks, index, branch))
        if args["vec"].dtype == torch.float16:  # hosts keep float16 states finite, block by block
            states = {name: torch.nan_to_num(state) for name, state in states.items()}
        return states

    return replacement
