"""What lies where other packs reach it: in a run's options and conditionings, in a model's wrappers.

They copy it, pickle it, print it and compare it, and must neither fail by that nor take the network along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InReach:
    """Of which a copy, deep or not, is the thing itself."""

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Handle(InReach):
    """Holds something of a run until the run is over. Pickled, it holds nothing.

    Called, it is a wrapper of the host's: what it holds, or where that is nothing the way on.
    """

    def __init__(self, held: Any = None):
        self.held = held

    def __call__(self, executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return executor(*args, **kwargs) if self.held is None else self.held(executor, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
