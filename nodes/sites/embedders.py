"""Embedders on a predicted step: what only the blocks would have taken need not be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .base import hooked, replaced


@dataclass(frozen=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Embedders:
    """What a model's embedders return, in calls that are alike: shapes only.

    A full step notes them. On a predicted step tensors of these shapes, of no particular content, stand in.

    blocks_rest: whether no block ran on the predicted step before. One that another pack keeps running takes what
        embedders return, so that the first predicted step has to show it.
    """

    def __init__(self) -> None:
        self.blocks_rest = False
        self._returned: dict[str, list[Any]] = {}  # by path, one for each time that it runs in a call

    @contextmanager
    def noted(self, model: nn.Module, paths: Sequence[str]) -> Iterator[None]:
        """While open, a forward of `model` tells what its embedders return."""
        def noting(path: str) -> Callable[..., None]:
            returned = self._returned[path] = []
            return lambda _module, _args, result: returned.append(pytree.tree_map(_shape, result))

        with hooked(*(module.register_forward_hook(noting(path)) for path, module in _modules(model, paths))):
            yield

    @contextmanager
    def passed_by(self, model: nn.Module, paths: Sequence[str]) -> Iterator[None]:
        """While open, a forward of `model` runs none of its embedders of which it is known what they return."""
        with ExitStack() as stack:
            for path, module in _modules(model, paths):
                leaves = pytree.tree_leaves(returned := self._returned.get(path, []))
                if leaves and all(leaf is None or isinstance(leaf, _Shape) for leaf in leaves):
                    stack.enter_context(replaced(module, "forward", _stand_in(returned, module.forward)))
            yield


def _modules(model: nn.Module, paths: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Those that this model has; of a list its members, which are what is called."""
    for path in paths:
        try:
            module = model.get_submodule(path)
        except AttributeError:  # another model of the family has it
            continue
        if isinstance(module, nn.ModuleList):
            yield from ((f"{path}.{name}", child) for name, child in module.named_children())
        else:
            yield path, module


def _stand_in(returned: Sequence[Any], forward: Callable[..., Any]) -> Callable[..., Any]:
    upcoming = iter(returned)

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        for shapes in upcoming:
            return pytree.tree_map(_empty, shapes)
        return forward(*args, **kwargs)

    return stand_in


def _shape(value: Any) -> Any:
    """Numbers that are not floating-point may be places in a table, for which nothing stands in."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return _Shape(tuple(value.shape), value.dtype, value.device) if is_float else value


def _empty(value: _Shape | None) -> Tensor | None:
    return value and torch.empty(value.shape, dtype=value.dtype, device=value.device)
