"""What a site does: name its features, record them on a full step, put forecasts in their place on a predicted one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..families import Family

Keep: TypeAlias = Callable[[str, Tensor], None]
"""Takes a feature by its name. The tensor is the host's own, which goes on changing it in place: copy what is kept."""


class Forecasts(ABC):
    """The features of a predicted step, for the whole batch, by name."""

    @abstractmethod
    def of(self, name: str) -> Tensor:
        """(B, ...), a fresh tensor."""

    def added(self, name: str, to: Tensor, gate: Tensor) -> Tensor:
        """to + gate · feature, fresh: (B, tokens, D), with one gate (B or 1, 1, D) for all tokens."""
        return to + gate * self.of(name)


@dataclass(frozen=True)
class SampleSize:
    """Of one sample with one prompt, as far as it is known before the network has run."""

    latent: int  # numbers
    tokens: tuple[int, ...]  # of each of the latents that are sampled together, reference images with the first
    text: int  # tokens

    @property
    def image(self) -> int:
        return sum(self.tokens)


class AbstractSite(ABC):
    needs_control = False  # whether a predicted step needs what a ControlNet gives: it is added where blocks run

    @abstractmethod
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        """Names of all features that a full step records; none where the family has no such site."""

    def needless(self, family: Family) -> tuple[str, ...]:
        """Paths of modules beside the blocks that a predicted step has no use for."""
        return ()

    @abstractmethod
    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        """How many numbers its features have for one sample: an estimate, made before the network has run."""

    @abstractmethod
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> AbstractContextManager[None]:
        """While open, a forward of `model` hands its features to `keep` and is otherwise untouched."""

    @abstractmethod
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> AbstractContextManager[dict[str, Any]]:
        """While open, a forward of `model` with the transformer_options it yields uses forecasts and skips the rest."""


def width(head: nn.Module) -> int:
    """Of the hidden state that a head takes: the most that one of its layers takes."""
    sizes = (
        getattr(layer, "in_features", 0) or getattr(layer, "in_channels", 0)
        or (getattr(layer, "normalized_shape", None) or (0,))[-1]
        for layer in head.modules())
    return max(sizes)


@contextmanager
def replaced(owner: nn.Module, name: str, value: Any) -> Iterator[None]:
    """While open, the owner's attribute is this value; then what another pack had put there, or its class's again."""
    before = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


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

    with hooked(*(part.register_forward_pre_hook(noting(path)) for path, part in first_parts(model, family).items())):
        yield


def first_parts(model: nn.Module, family: Family) -> dict[str, nn.Module]:
    """Of each block list a module that runs whenever its first block does, and not for the gates alone.

    Not the block: those of U-Nets are not called as modules.
    """
    branches = {blocks.path: blocks.branches[0] for blocks in family.modules}
    found: dict[str, nn.Module] = {}
    for path in family.blocks:
        blocks = model.get_submodule(path)
        if path in branches:
            within = [blocks.get_submodule(f"0.{branches[path]}")] if len([*blocks.children()]) else []
        else:
            within = list(blocks.modules())[1:]
        leaves = (leaf for module in within for leaf in module.modules() if not [*leaf.children()])
        if leaf := next(leaves, None):
            found[path] = leaf
    return found
