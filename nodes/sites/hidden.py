"""Site hidden: the input of the head. A predicted step runs the embedders and the head, no block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ..families import Family
from .base import AbstractSite, Forecast, Keep, hooked


class HiddenSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return family.heads

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        def seen(head: str) -> Callable[..., None]:
            return lambda _head, args: keep(head, args[0])

        with hooked(*(model.get_submodule(head).register_forward_pre_hook(seen(head)) for head in family.heads)):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecast: Forecast) -> Iterator[dict[str, Any]]:
        def substitute(head: str) -> Callable[..., tuple[Any, ...]]:
            return lambda _head, args: (forecast(head), *args[1:])

        heads = (model.get_submodule(head).register_forward_pre_hook(substitute(head)) for head in family.heads)
        with hooked(*heads), ExitStack() as stack:
            for path in family.blocks:
                stack.enter_context(_emptied(model, path))
            yield options


@contextmanager
def _emptied(model: nn.Module, path: str) -> Iterator[None]:
    """While open, the list of blocks at `path` is empty: what enters it leaves it, whatever its blocks look like."""
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    blocks = owner.get_submodule(name)
    setattr(owner, name, _PassedBy(blocks.items()) if isinstance(blocks, nn.ModuleDict) else type(blocks)())
    try:
        yield
    finally:
        setattr(owner, name, blocks)


class _PassedBy(nn.ModuleDict):
    """Has its blocks, for those who look one up by name, but none to go through."""

    def items(self) -> Any:
        return ()
