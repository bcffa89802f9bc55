"""Facts about model families, as data: one file each in the folder of what it makes, found by its FAMILY."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

from torch import Tensor, nn

Gates: TypeAlias = Callable[[nn.Module, dict[str, Any]], tuple[Tensor, ...]]
"""Of a block and its arguments, the gates of its branches, (B or 1, gates, D) each."""


Matches: TypeAlias = Callable[[nn.Module, type], bool]
"""Whether a diffusion model is of the family, taken for one of a class: its own, or one that it derives from."""

HeadArgs: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class HeadView:
    """Where a head's hidden state is among its arguments, for those that take it otherwise than first and as (B, ...).

    feature: of the arguments and the number of samples in the call, (B, ...). arguments: the same with such a feature
    in its place.
    """

    feature: Callable[[HeadArgs, int], Tensor] = lambda args, _: args[0]
    arguments: Callable[[HeadArgs, Tensor], HeadArgs] = lambda args, feature: (feature, *args[1:])


FIRST_ARGUMENT = HeadView()
PARTS_ARE_ROWS = HeadView(
    lambda args, samples: args[0].unflatten(0, (samples, -1)),  # (B · patches or frames, ...)
    lambda args, feature: (feature.flatten(0, 1), *args[1:]))


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
    matches: Matches = lambda _model, _kind: False
    # Paths of the modules that first take a hidden state, as their first argument; "a or b" where one of two does.
    heads: tuple[str, ...] = ()
    heads_see_text: bool = False  # beside the image
    heads_see_references: bool = True  # images to edit or to follow, whose tokens go with the image's
    view: HeadView = FIRST_ARGUMENT
    blocks: tuple[str, ...] = ()  # paths of the block lists before the heads, which a predicted step passes by
    # Lists whose one module is all blocks in one. The model asks for it by its index, so that the list can't be empty:
    # on a predicted step it returns, as they came, those of its arguments that are `states`. "?" as below.
    fused: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    # Paths of modules, or lists of them, whose results only blocks take: a predicted step at site hidden leaves them
    # out. One that ends in "?" only some models of the family have. And that of them that makes the image state which
    # branches are added to: a predicted step at site module needs no other.
    embedders: tuple[str, ...] = ()
    image_embedder: str = ""
    modules: tuple[BlockList, ...] = ()  # those of them that site module knows
    # How many latents a side make a token, or the model's attribute that says so; one where it has none.
    patch: str | int = "patch_size"
    # Of the i-th of the latents that are sampled together, by its shape, how many tokens it has, where that differs.
    tokens: Callable[[nn.Module, int, Sequence[int]], int] | None = None
    pads_to: str = ""  # the model's attribute that says of what number a text's tokens, and an image's, are a multiple
    at_output: str = ""  # why features can only be taken there, of those that are known not to have another site
    lacks: tuple[str, ...] = ()  # parts that one model does not have, so that no more of it is known than stands here
    derived: bool = False  # of a class that no file names, from one that this does: what holds of that is to be tried

    @property
    def parts(self) -> tuple[str, ...]:
        """Paths of the modules that every model of the family has."""
        heads = (path for head in self.heads for path in head.split(" or "))
        return (*heads, *self.blocks, *(path for path in (*self.fused, *self.embedders) if not path.endswith("?")))

    @property
    def needless(self) -> tuple[str, ...]:
        """Paths of the embedders, of all models of the family."""
        return tuple(path.removesuffix("?") for path in self.embedders)

    def fused_of(self, diffusion_model: nn.Module) -> tuple[nn.Module, ...]:
        """Its modules that are all blocks in one."""
        paths = (path.removesuffix("?") for path in self.fused)
        return tuple(module for path in paths if has(diffusion_model, path, as_a_list=True)
                     for module in diffusion_model.get_submodule(path).children())

    def known_of(self, diffusion_model: nn.Module) -> Family:
        """What holds of a model of the class. Without one of the parts that is its name: the class is another pack's
        then, or a newer host's. Without a branch it is all but site module."""
        lists = (*self.blocks, *self.fused)
        lacks = tuple(path for path in self.parts if not has(diffusion_model, path, path in lists)) or tuple(
            f"{state} in {type(module).__name__}" for module in self.fused_of(diffusion_model)
            for state in self.states if state not in inspect.signature(module.forward).parameters)
        if lacks:
            return Family(self.name, lacks=lacks)
        lacks = tuple(
            f"{blocks.path}.{i}.{branch}" for blocks in self.modules
            for i, block in enumerate(diffusion_model.get_submodule(blocks.path))
            for branch in blocks.branches if not has(block, branch))
        return replace(self, modules=(), lacks=lacks) if lacks else self


def has(model: nn.Module, path: str, as_a_list: bool = False) -> bool:
    """Whether there is a module at the path."""
    try:
        found = model.get_submodule(path)
    except AttributeError:
        return False
    return not as_a_list or isinstance(found, nn.ModuleList | nn.ModuleDict | nn.Sequential)


def of_class(*names: str) -> Matches:
    """Matches diffusion models of these classes, by their qualified names."""

    def matches(_diffusion_model: nn.Module, kind: type) -> bool:
        return f"{kind.__module__}.{kind.__qualname__}" in names

    return matches


def of_pack_class(*names: str) -> Matches:
    """The same for classes of custom node packs: a qualified name there begins with the pack's folder, wherever that
    is."""

    def matches(_diffusion_model: nn.Module, kind: type) -> bool:
        return f"{kind.__module__}.{kind.__qualname__}".endswith(tuple(f".{name}" for name in names))

    return matches


@cache
def families() -> tuple[Family, ...]:
    found = (name for _, name, is_folder in pkgutil.walk_packages(__path__, f"{__name__}.") if not is_folder)
    return tuple(importlib.import_module(name).FAMILY for name in found)


def find_family(diffusion_model: nn.Module) -> Family:
    """The model's, as far as it is what its file describes; of one that no file describes, nothing is known but its
    name. One of another pack's or a newer host's class is taken for the nearest that it derives from."""
    own = type(diffusion_model)
    for kind in own.__mro__:
        for family in families():
            if family.matches(diffusion_model, kind):
                return replace(family.known_of(diffusion_model), derived=kind is not own)
    return Family(own.__name__)
