"""Facts about model families, as data: one file each, found by its FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Branch:
    """A submodule whose output is added, gated, to a block's state: state += gate · module(...)."""

    module: str  # within the block
    state: str  # which of the block's states it is added to


@dataclass(frozen=True)
class BlockList:
    """What site module needs to know of a list of blocks."""

    path: str  # in the diffusion model
    key: str  # in patches_replace["dit"]
    states: tuple[str, ...]  # what a block takes and returns under these names
    branches: tuple[Branch, ...]  # in the order in which they are added
    gates: Callable[[nn.Module, dict[str, Any]], tuple[Tensor, ...]]  # of (block, its arguments): the branches' gates
    joint: bool = False  # whether its state holds text and image tokens, one behind the other


@dataclass(frozen=True)
class Family:
    name: str
    matches: Callable[[nn.Module], bool] = lambda _: False  # is this diffusion model one?
    # Paths of the modules that first take a hidden state, as their first argument; "a or b" where one of two does.
    heads: tuple[str, ...] = ()
    heads_see_text: bool = False  # beside the image
    blocks: tuple[str, ...] = ()  # paths of the block lists before the heads, which a predicted step passes by
    # Paths of modules, or lists of them, whose results only blocks take: a predicted step at site hidden leaves them
    # out. And those of them that tell attention where tokens are: one at site module leaves them out, too.
    embedders: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    modules: tuple[BlockList, ...] = ()  # those of them that site module knows
    patch: str = "patch_size"  # the model's attribute that says how many latents a side make a token; one without it


def of_class(*names: str) -> Callable[[nn.Module], bool]:
    """Matches diffusion models of just these classes, by their qualified names; what derives from them may differ."""

    def matches(diffusion_model: nn.Module) -> bool:
        kind = type(diffusion_model)
        return f"{kind.__module__}.{kind.__qualname__}" in names

    return matches


@cache
def families() -> tuple[Family, ...]:
    modules = (importlib.import_module(f".{found.name}", __name__) for found in pkgutil.iter_modules(__path__))
    return tuple(module.FAMILY for module in modules)


def find_family(diffusion_model: nn.Module) -> Family:
    """The model's; of one that no file describes, nothing is known but its name."""
    found = (family for family in families() if family.matches(diffusion_model))
    return next(found, Family(type(diffusion_model).__name__))
