"""Sequence parallelism: several processes hold a part of the tokens each, and forecast it by themselves.

Forecasts and updates are weighted sums, which need nothing of the other parts. Only Adapted-FeMo looks at a feature as
a whole: at its norm, or at those of three forecasts' errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed
from torch import Tensor

T = TypeVar("T")


def whole_norms(group: torch.distributed.ProcessGroup) -> Callable[[Tensor], Tensor]:
    """A ForecastSession's `share`: ‖feature‖₂ = √Σ‖part‖₂² over the group, in one all-reduce of the norms' shape.

    Every process gets the same numbers, so that β is the same on all of them.
    """
    def share(norms: Tensor) -> Tensor:
        squares = norms.square()
        torch.distributed.all_reduce(squares, group=group)  # pyright: ignore[reportUnknownMemberType]
        return squares.sqrt()

    return share


def first_ones(value: T, group: torch.distributed.ProcessGroup) -> T:
    """What the first process of the group has, on all of them: for choices that must not differ."""
    found = [value]
    first = torch.distributed.get_global_rank(group, 0)
    torch.distributed.broadcast_object_list(found, first, group)  # pyright: ignore[reportUnknownMemberType]
    return found[0]


def is_first(group: torch.distributed.ProcessGroup) -> bool:
    """Whether this process is the group's first."""
    return torch.distributed.get_rank(group) == 0
