"""Site hidden: the input of the head. A predicted step runs the embedders and the head, no block."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from ..families import FIRST_ARGUMENT, Family
from .base import AbstractSite, Forecasts, Keep, SampleSize, hooked, replaced, width


class HiddenSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return family.heads

    def needless(self, family: Family) -> tuple[str, ...]:
        return family.needless

    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        widths = [max(map(width, _alternatives(model, head))) for head in family.heads]
        if len(widths) > 1:  # each has a latent of its own
            return sum(tokens * wide for tokens, wide in zip(sample.tokens, widths, strict=False))
        return (sample.image + family.heads_see_text * sample.text) * widths[0]

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        samples = [1]  # in this call

        def count(_model: nn.Module, args: tuple[Any, ...]) -> None:
            samples[:] = [len(args[0])]

        def seen(head: str) -> Callable[..., None]:
            def take(_head: nn.Module, args: tuple[Any, ...]) -> None:
                try:
                    feature = family.view.feature(args, samples[0])
                except (IndexError, TypeError, ValueError, RuntimeError):
                    return  # another version's head, called in another way: its feature does not come
                keep(head, feature)

            return take

        counting = hooked(*([] if family.view is FIRST_ARGUMENT else [model.register_forward_pre_hook(count)]))
        with counting, _before_heads(model, family, seen):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> Iterator[dict[str, Any]]:
        def substitute(head: str) -> Callable[..., tuple[Any, ...]]:
            return lambda _head, args: family.view.arguments(args, forecasts.of(head))

        # A model that remembers what its blocks made (HiDream-O1 does) must not remember this: where somebody replaces
        # blocks, it does not.
        passed_by = {**options.get("patches_replace", {}), "dit": {("passed by", 0): None}}
        with _before_heads(model, family, substitute), ExitStack() as stack:
            for path in family.blocks:
                stack.enter_context(_emptied(model, path))
            for module in family.fused_of(model):
                stack.enter_context(_handing_on(module, family.states))
            yield {**options, "patches_replace": passed_by}


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


def _handing_on(module: nn.Module, states: Sequence[str]) -> AbstractContextManager[None]:
    """While open, the module returns these of its arguments, as they came."""
    names = tuple(inspect.signature(module.forward).parameters)

    def hand_on(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return tuple(given[state] for state in states)

    return replaced(module, "forward", hand_on)


class _PassedBy(nn.ModuleDict):
    """Has its blocks, for those who look one up by name, but none to go through."""

    def items(self) -> Any:
        return ()
