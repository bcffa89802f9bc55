"""What a site does: name its features, record them on a full step, put forecasts in their place on a predicted one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..families import Family

Forecast: TypeAlias = Callable[[str], Tensor]
"""Feature name -> its forecast for the whole batch, (B, ...)."""


class AbstractSite(ABC):
    @abstractmethod
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        """Names of all features that a full step records."""

    @abstractmethod
    def recording(self, model: nn.Module, family: Family, captured: dict[str, Tensor]) -> AbstractContextManager[None]:
        """While open, a forward of `model` leaves copies of its features in `captured` and is otherwise untouched."""

    @abstractmethod
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecast: Forecast) -> AbstractContextManager[dict[str, Any]]:
        """While open, a forward of `model` with the transformer_options it yields uses forecasts and skips the rest."""


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Removes torch hooks at the end."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def watching_blocks(model: nn.Module, family: Family, ran: list[str]) -> Iterator[None]:
    """Notes in `ran` which block lists run while it is open: on a predicted step none should."""
    def noting(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    names = [blocks.attribute for blocks in family.block_lists if len(model.get_submodule(blocks.attribute))]
    with hooked(*(model.get_submodule(f"{name}.0").register_forward_pre_hook(noting(name)) for name in names)):
        yield


def with_replaced_blocks(options: dict[str, Any], blocks: dict[tuple[str, int], Callable[..., Any]]) -> dict[str, Any]:
    """A copy of transformer_options in which `blocks` take the place of any other replacement."""
    replaced = dict(options.get("patches_replace", {}))
    replaced["dit"] = {**replaced.get("dit", {}), **blocks}
    return {**options, "patches_replace": replaced}
