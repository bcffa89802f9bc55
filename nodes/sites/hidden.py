"""Site hidden: the input of the head. A predicted step runs the embedders and the head, no block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..families import BlockList, Family
from .base import AbstractSite, Forecast, hooked, with_replaced_blocks


class HiddenSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return ("hidden",)

    @contextmanager
    def recording(self, model: nn.Module, family: Family, captured: dict[str, Tensor]) -> Iterator[None]:
        def keep(_head: nn.Module, args: tuple[Any, ...]) -> None:
            captured["hidden"] = args[0].clone()  # hosts go on changing it in place

        with hooked(model.get_submodule(family.head).register_forward_pre_hook(keep)):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecast: Forecast) -> Iterator[dict[str, Any]]:
        def substitute(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (forecast("hidden"), *args[1:])

        skips = {
            (blocks.key, i): _skip(blocks)
            for blocks in family.block_lists for i in range(len(model.get_submodule(blocks.attribute)))
        }
        with hooked(model.get_submodule(family.head).register_forward_pre_hook(substitute)):
            yield with_replaced_blocks(options, skips)


def _skip(blocks: BlockList) -> Callable[..., dict[str, Tensor]]:
    def skip(args: dict[str, Any], _extra: dict[str, Any]) -> dict[str, Tensor]:
        return {name: args[name] for name in blocks.states}

    return skip
