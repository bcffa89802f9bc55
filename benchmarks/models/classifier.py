"""A small convolutional classifier of the drawings: which thing, which colour. It judges generated images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.models import drawings

TARGETS = {"colour": list(drawings.COLOURS), "thing": list(drawings.THINGS)}


class Classifier(nn.Module):
    """pixels (B, 3, H, W) in −1 … 1 -> features (B, 128) and logits for colour (8) and thing (10)."""

    def __init__(self):
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(words)) for name, words in TARGETS.items()})

    def features(self, pixels: Tensor) -> Tensor:
        x = pixels
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x)))
        return x.mean((2, 3))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.features(pixels)
        return {name: head(features) for name, head in self.heads.items()}


def targets(words: Tensor) -> dict[str, Tensor]:
    """(B, 3) indices into drawings.WORDS (colour, thing, background) -> class indices for each head."""
    return {"colour": words[:, 0], "thing": words[:, 1] - len(drawings.COLOURS)}


def train_classifier(pixels: Tensor, words: Tensor, steps: int = 1200, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    model = Classifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(pixels), (64,))
        batch = pixels[rows] + 0.1 * torch.rand(()) * torch.randn(64, *pixels.shape[1:])
        wanted = targets(words[rows])
        loss = sum(F.cross_entropy(logits, wanted[name]) for name, logits in model(batch).items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def accuracy(model: Classifier, pixels: Tensor, words: Tensor) -> dict[str, float]:
    wanted = targets(words)
    with torch.no_grad():
        logits = model(pixels)
    return {name: (logits[name].argmax(-1) == wanted[name]).float().mean().item() for name in wanted}
