"""Facts about model families, as data: one file each, found by its FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from torch import Tensor, nn

Gates: TypeAlias = Callable[[nn.Module, dict[str, Any]], tuple[Tensor, ...]]
"""Of a block and its arguments, the gates of its branches, (B or 1, gates, D) each."""


@dataclass(frozen=True)
class BlockList:
    """What site module needs to know of a list of blocks.

    A branch is a submodule whose output is added, gated, to the block's image state: img += gate · module(...). Those
    that are added to a text state of its own are not here: with the branches of the image forecast, they reach nothing
    that leaves the network.
    """

    path: str  # in the diffusion model
    key: str  # in patches_replace["dit"]
    branches: tuple[str, ...]  # their modules within a block, in the order in which they are added
    gates: Gates
    joint: bool = False  # whether its image state holds the text's tokens too, before or behind the image's


@dataclass(frozen=True)
class Family:
    name: str
    matches: Callable[[nn.Module], bool] = lambda _: False  # is this diffusion model one?
    # Paths of the modules that first take a hidden state, as their first argument; "a or b" where one of two does.
    heads: tuple[str, ...] = ()
    heads_see_text: bool = False  # beside the image
    blocks: tuple[str, ...] = ()  # paths of the block lists before the heads, which a predicted step passes by
    # Paths of modules, or lists of them, whose results only blocks take: a predicted step at site hidden leaves them
    # out. And that of them that makes the image state which branches are added to: one at site module needs no other.
    embedders: tuple[str, ...] = ()
    image_embedder: str = ""
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
