"""Site hidden: the input of the head. A predicted step runs the embedders and the head, no block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from ..families import Family
from .base import AbstractSite, Forecasts, Keep, SampleSize, hooked, width


class HiddenSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return family.heads

    def needless(self, family: Family) -> tuple[str, ...]:
        return family.needless

    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        widths = [max(map(width, _alternatives(model, head))) for head in family.heads]
        return (sample.image + family.heads_see_text * sample.text) * sum(widths)

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        def seen(head: str) -> Callable[..., None]:
            return lambda _head, args: keep(head, args[0])

        with _before_heads(model, family, seen):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> Iterator[dict[str, Any]]:
        def substitute(head: str) -> Callable[..., tuple[Any, ...]]:
            return lambda _head, args: (forecasts.of(head), *args[1:])

        # A model that remembers what its blocks made (HiDream-O1 does) must not remember this: where somebody replaces
        # blocks, it does not.
        replaced = {**options.get("patches_replace", {}), "dit": {("passed by", 0): None}}
        with _before_heads(model, family, substitute), ExitStack() as stack:
            for path in family.blocks:
                stack.enter_context(_emptied(model, path))
            yield {**options, "patches_replace": replaced}


def _before_heads(model: nn.Module, family: Family,
                  hook: Callable[[str], Callable[..., Any]]) -> AbstractContextManager[None]:
    return hooked(*(
        module.register_forward_pre_hook(hook(head))
        for head in family.heads for module in _alternatives(model, head)))


def _alternatives(model: nn.Module, head: str) -> list[nn.Module]:
    return [model.get_submodule(path) for path in head.split(" or ")]


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
