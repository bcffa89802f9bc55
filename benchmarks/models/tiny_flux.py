"""The tiny Flux: its checkpoint, prompts, latents and Euler sampler, without ComfyUI."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.models import drawings
from benchmarks.models.flux_model import Flux, FluxConfig

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
LATENT_SHAPE = (16, 16, 16)  # channels, height, width: a 64 × 64 drawing at 4 pixels a cell
SHIFT = 1.15  # ComfyUI's default for Flux: exp(1.15) ≈ 3.16, the "timestep shift 3" of the literature

# Flux' latent space: what the sampler sees is (latent − 0.1159) · 0.3611 (the FLUX.1 autoencoder's constants).
LATENT_SHIFT, LATENT_SCALE = 0.1159, 0.3611


def load_tiny_flux(path: Path = CHECKPOINTS / "tiny_flux.safetensors") -> Flux:
    weights = load_file(path)
    model = Flux(FluxConfig.from_state_dict(weights))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def encode_prompts(prompts: list[str], dim: int = 64) -> Tensor:
    """Prompts of drawings.WORDS ("red house day") to one-hot context tokens, (B, 3, dim). "" is all zeros."""
    context = torch.zeros(len(prompts), 3, dim)
    for row, prompt in enumerate(prompts):
        for token, word in enumerate(prompt.split()):
            if word not in drawings.WORDS:
                raise ValueError(f"prompt {prompt!r}: unknown word {word!r}; known: {' '.join(drawings.WORDS)}")
            context[row, token, drawings.WORDS.index(word)] = 1.0
    return context


class Codec:
    """A linear autoencoder in the place of Flux' own: 16 principal components of 4 × 4 RGB patches.

    pixels (B, 3, H, W) in −1 … 1  <->  latent (B, 16, H/4, W/4) in the autoencoder's space, as in a LATENT file.
    """

    def __init__(self, mean: Tensor, basis: Tensor, scale: Tensor):
        self.mean, self.basis, self.scale = mean, basis, scale  # (48,), (48, 16) orthonormal, (16,)

    @classmethod
    def load(cls, path: Path = CHECKPOINTS / "tiny_flux_codec.safetensors") -> Codec:
        return cls(**load_file(path))

    @classmethod
    def fit(cls, pixels: Tensor) -> Codec:
        patches = torch.nn.functional.pixel_unshuffle(pixels, 4).movedim(1, -1).flatten(0, -2).double()
        mean = patches.mean(0)
        centred = patches - mean
        variance, basis = torch.linalg.eigh(centred.T @ centred / len(patches))
        variance, basis = variance.flip(0)[:16], basis.flip(1)[:, :16]
        scale = variance.pow(-0.25)  # halfway to whitening: edges count, noise does not drown them
        scale = scale / (variance * scale**2).mean().sqrt()
        return cls(mean.float(), basis.contiguous().float(), scale.float())

    def encode(self, pixels: Tensor) -> Tensor:
        patches = torch.nn.functional.pixel_unshuffle(pixels, 4).movedim(1, -1)
        return to_latent(((patches - self.mean) @ self.basis * self.scale).movedim(-1, 1))

    def decode(self, latent: Tensor) -> Tensor:
        patches = (from_latent(latent.float()).movedim(1, -1) / self.scale) @ self.basis.T + self.mean
        return torch.nn.functional.pixel_shuffle(patches.movedim(-1, 1), 4).clamp(-1, 1)


def shifted_sigmas(steps: int, shift: float = SHIFT) -> list[float]:
    """Noise levels 1 … 0, `steps` + 1 of them, spaced as ComfyUI's "simple" scheduler spaces them for Flux."""
    times = [1 - i / steps for i in range(steps + 1)]
    factor = math.exp(shift)
    return [factor * t / (1 + (factor - 1) * t) for t in times]


def to_latent(x: Tensor) -> Tensor:
    """What the sampler returns, in the model's space, to the autoencoder's space (a LATENT)."""
    return x / LATENT_SCALE + LATENT_SHIFT


def from_latent(latent: Tensor) -> Tensor:
    """A LATENT to the model's space."""
    return (latent - LATENT_SHIFT) * LATENT_SCALE
