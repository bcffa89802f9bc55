"""What other nodes remember from one evaluation of the network for the next.

Where evaluations are forecast in between it is older than they think, so that they start afresh.
"""

from __future__ import annotations

from typing import Any

from comfy.patcher_extension import CallbacksMP

KEYS = {"block_sparse_attention": "Block Sparse Attention"}  # of their callbacks; that for the end of a run clears it


class History:
    """Of one run. It is told of each call whether it was forecast."""

    def __init__(self, patcher: Any):
        self.patcher = patcher
        self.found = [(name, callback) for key, name in KEYS.items()
                      for callback in patcher.get_callbacks(CallbacksMP.ON_CLEANUP, key)]
        self._outdated = False

    @property
    def notice(self) -> str:
        """What the user should know, or ""."""
        names = " and ".join(dict.fromkeys(name for name, _ in self.found))
        return names and f"{names} goes by the evaluation before: it starts afresh after forecast steps"

    def comes(self, forecast: bool) -> None:
        """A call that is forecast, or runs the network."""
        if self._outdated and not forecast:
            for _, clear in self.found:
                clear(self.patcher)
        self._outdated = forecast
