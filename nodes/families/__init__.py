"""Facts about model families, as data: one file each, found by its FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from torch import nn


@dataclass(frozen=True)
class Branch:
    """A submodule whose output is added, gated, to a block's state: state += gate · module(...)."""

    module: str  # within the block
    state: str  # which of the block's states it is added to
    modulation: str  # submodule of the block that gives the gates, from args["vec"]
    part: int  # which part of its result


@dataclass(frozen=True)
class BlockList:
    attribute: str  # on the diffusion model
    key: str  # in patches_replace["dit"]
    states: tuple[str, ...]  # what a block takes and returns under these names
    branches: tuple[Branch, ...]  # in the order in which they are added


@dataclass(frozen=True)
class Family:
    name: str
    matches: Callable[[nn.Module], bool]  # is this diffusion model one?
    head: str  # the module that takes the hidden state first
    block_lists: tuple[BlockList, ...]


@cache
def families() -> tuple[Family, ...]:
    modules = (importlib.import_module(f".{found.name}", __name__) for found in pkgutil.iter_modules(__path__))
    return tuple(module.FAMILY for module in modules)


def find_family(diffusion_model: nn.Module | None) -> Family | None:
    return next((family for family in families() if family.matches(diffusion_model)), None)
