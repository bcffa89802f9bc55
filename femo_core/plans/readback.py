"""Small values on their way from the device to the host, without waiting for them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


class Readback:
    """A tensor whose values are wanted later.

    From a GPU they are copied while it works on; `ready` tells whether they have come.
    """

    def __init__(self, tensor: Tensor):
        self._event: torch.cuda.Event | None = None
        self._tensor = tensor.detach()
        if tensor.is_cuda:
            self._tensor = self._tensor.to("cpu", non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    @property
    def ready(self) -> bool:
        """Of other kinds of device nothing is known: what is there counts as on its way."""
        return self._event.query() if self._event is not None else self._tensor.device.type == "cpu"

    def arrived(self) -> list[float] | None:
        """What has come without being waited for; None where it has not."""
        if not self.ready:
            return None
        return cast("list[float]", self._tensor.tolist())  # pyright: ignore[reportUnknownMemberType]

    def values(self) -> list[float]:
        """Waits for them if need be."""
        if self._event is not None:
            self._event.synchronize()
        return [float(value) for value in self._tensor.flatten().cpu()]
