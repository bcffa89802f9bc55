"""The tiny DiT: its checkpoint, classes, noise levels and DDIM sampler, without ComfyUI."""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.pack.dit.checkpoint import config_of
from benchmarks.pack.dit.model import DiT, DiTConfig
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.models import drawings

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "tiny_dit.safetensors"
SIZE = 32  # pixels a side: the drawings at half their size
CLASSES = tuple(f"{colour} {thing}" for colour in drawings.COLOURS for thing in drawings.THINGS)
NULL_CLASS = len(CLASSES)

# DiT's noise: 1000 steps of linear β, 1e-4 … 0.02 (Ho et al. 2020).
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
SIGNAL = (1 - BETAS).cumprod(0)  # ᾱ: the share of the image's variance that is left


TINY = DiTConfig(hidden=192, depth=5, heads=3, patch=4, in_channels=3, out_channels=6, classes=len(CLASSES), grid=8)


def load_tiny_dit(path: Path = CHECKPOINT) -> DiT:
    weights = {name: value.float() for name, value in load_file(path).items()}
    model = DiT(config_of(weights))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def labels_of(words: Tensor) -> Tensor:
    """(B, 3) indices into drawings.WORDS (colour, thing, background) -> class indices (B,)."""
    return words[:, 0] * len(drawings.THINGS) + words[:, 1] - len(drawings.COLOURS)


def half_size(pixels: Tensor) -> Tensor:
    """Drawings (B, 3, 64, 64) at the size that the tiny DiT draws, (B, 3, 32, 32)."""
    return torch.nn.functional.avg_pool2d(pixels, 2)


def ddim_timesteps(steps: int) -> Tensor:
    """`steps` of the 1000 training timesteps, falling and evenly spaced, as ComfyUI's "ddim_uniform" picks them."""
    stride = 1000 // steps
    return torch.arange(1, 1000, stride)[:steps].flip(0)


def sigmas_of(timesteps: Tensor) -> list[float]:
    """Noise levels σ = √((1 − ᾱ) / ᾱ) of falling timesteps, and 0 after them: the image is then x·√ᾱ + noise."""
    signal = SIGNAL[timesteps]
    return [*((1 - signal) / signal).sqrt().tolist(), 0.0]


def classes_of(prompts: tuple[str, ...]) -> Tensor:
    """"red house day" -> the class "red house"; its background is left to chance."""
    return torch.tensor([CLASSES.index(" ".join(prompt.split()[:2])) for prompt in prompts])
