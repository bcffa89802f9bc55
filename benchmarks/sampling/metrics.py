"""How far pictures are from others: torchmetrics' metrics on pixels (B, 3, H, W) in −1 … 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.models.classifier import Classifier

RANGE = 2.0  # of a pixel


def rmse(pixels: Tensor, reference: Tensor) -> float:
    return (pixels - reference).square().mean().sqrt().item()


def psnr(pixels: Tensor, reference: Tensor) -> float:
    """dB, mean over the samples."""
    return peak_signal_noise_ratio(pixels, reference, data_range=RANGE, dim=(1, 2, 3)).item()


def ssim(pixels: Tensor, reference: Tensor) -> float:
    return structural_similarity_index_measure(pixels, reference, data_range=RANGE).item()  # type: ignore[union-attr]


METRICS = {"rmse": rmse, "psnr": psnr, "ssim": ssim}


def over_seeds(metric: Callable[[Tensor, Tensor], float], pixels: Tensor, reference: Tensor,
               samples: int) -> tuple[float, float]:
    """A metric's mean over the seeds, each of so many samples in a row, and its standard error."""
    return mean_and_error([metric(*pair) for pair in zip(
        pixels.split(samples), reference.split(samples), strict=True)])


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the seeds, and its standard error."""
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(spread / max(1, len(values) - 1) / len(values))


class _Features(nn.Module):
    """What torchmetrics wants: pixels as bytes in, features out."""

    num_features = 128

    def __init__(self, judge: Classifier):
        super().__init__()
        self.judge = judge

    def forward(self, images: Tensor) -> Tensor:
        return self.judge.features(images.float() / 127.5 - 1)


def frechet(judge: Classifier, pixels: Tensor, real: Tensor) -> float:
    """Fréchet distance of the classifier's 128 features (not Inception's: comparable with others from here only)."""
    metric = FrechetInceptionDistance(feature=_Features(judge))
    for images, is_real in ((real, True), (pixels, False)):
        for batch in ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).split(256):
            metric.update(batch, real=is_real)
    return metric.compute().item()
