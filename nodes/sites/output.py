"""Site output: what the diffusion model returns. A predicted step runs nothing of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..families import Family
from .base import AbstractSite, Forecast, hooked


class OutputSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return ("output",)

    @contextmanager
    def recording(self, model: nn.Module, family: Family, captured: dict[str, Tensor]) -> Iterator[None]:
        def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
            captured["output"] = output.clone()

        with hooked(model.register_forward_hook(keep)):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecast: Forecast) -> Iterator[dict[str, Any]]:
        before = model.__dict__.get("forward")  # another pack's replacement, which is to come back
        model.forward = lambda *_args, **_kwargs: forecast("output")
        try:
            yield options
        finally:
            if before is None:
                del model.forward
            else:
                model.forward = before
