"""Site output: what the diffusion model returns. A predicted step runs nothing of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..families import Family
from .base import AbstractSite, Forecasts, Keep, SampleSize, hooked, replaced


class OutputSite(AbstractSite):
    def features(self, model: nn.Module, family: Family) -> tuple[str, ...]:
        return ("output",)

    def expected(self, model: nn.Module, family: Family, sample: SampleSize) -> int:
        return sample.latent

    @contextmanager
    def recording(self, model: nn.Module, family: Family, keep: Keep) -> Iterator[None]:
        def seen(_module: nn.Module, _args: Any, output: Any) -> None:
            keep("output", output if isinstance(output, Tensor) else _packed(output))

        with hooked(model.register_forward_hook(seen)):
            yield

    @contextmanager
    def substituting(self, model: nn.Module, family: Family, options: dict[str, Any],
                     forecasts: Forecasts) -> Iterator[dict[str, Any]]:
        with replaced(model, "forward", lambda *_args, **_kwargs: forecasts.of("output")):
            yield options


def _packed(parts: list[Tensor]) -> Tensor:
    """Several latents (video and sound) in one, (B, 1, numbers), as the host itself goes on with them."""
    return torch.cat([part.reshape(part.shape[0], 1, -1) for part in parts], dim=-1)
