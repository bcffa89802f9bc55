"""The small FLUX.1 that most tests sample."""

from __future__ import annotations

import dataclasses
from typing import Any

import small_models
import torch
from small_images import IMAGES

VARIANTS = ("dev", "schnell", "kontext", "fill")
_FLUX = {variant: small for variant in VARIANTS for small in IMAGES if small.name.lower() == f"flux.1 {variant}"}


def build_flux(variant: str = "dev", dtype: torch.dtype = torch.float32) -> Any:
    return small_models.build(_FLUX[variant], dtype)


def conditioning(seed: int, tokens: int = 4, variant: str = "dev") -> list[Any]:
    small = _FLUX[variant]
    return small_models.conditioning(dataclasses.replace(small, text=(tokens, small.text[1])), seed)


def sample(model: Any, variant: str = "dev", size: tuple[int, int] = (8, 8), **settings: Any) -> torch.Tensor:
    """As small_models.sample; `size` of the latent."""
    small = _FLUX[variant]
    return small_models.sample(dataclasses.replace(small, latent=(small.latent[0], *size)), model, **settings)
