"""How far a run's pictures are from the full run's, and how good they are by themselves.

PSNR and SSIM always; LPIPS, ImageReward and CLIP where the user has installed `lpips`, `image-reward` and
`open_clip_torch`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from benchmarks.sampling.metrics import psnr, ssim

EQUAL = 1000.0  # dB: JSON has no infinity
SMALLEST = 11  # pixels a side, of SSIM's window
Figures: TypeAlias = dict[str, float]
Metric: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], str], float]
"""Of pictures (3, H, W) in −1 … 1, those of the full run, and the prompt."""


def distances(pictures: Sequence[Tensor], full: Sequence[Tensor]) -> Figures:
    """Mean over the pictures (a video's frames, a batch), and the worst of them."""
    if [one.shape for one in pictures] != [one.shape for one in full]:
        raise ValueError(f"{len(pictures)} pictures of {_size(pictures)}, and the full run made {len(full)} of "
                         f"{_size(full)}: these can't be compared")
    found: Figures = {}
    metrics = {"psnr": psnr, **({"ssim": ssim} if min(full[0].shape[1:]) >= SMALLEST else {})}
    for name, metric in metrics.items():
        values = [min(EQUAL, metric(one[None], other[None])) for one, other in zip(pictures, full, strict=True)]
        found |= {name: sum(values) / len(values), f"{name}_min": min(values)}
    return found


def _size(pictures: Sequence[Tensor]) -> str:
    return " × ".join(map(str, pictures[0].shape[1:][::-1])) if pictures else "nothing"


def pixels(image: Image) -> Tensor:
    """(3, H, W) in −1 … 1."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3).movedim(-1, 0).float() / 127.5 - 1


def image_of(picture: Tensor) -> Image:
    return fromarray(((picture + 1) * 127.5).round().clamp(0, 255).byte().movedim(0, -1).numpy())


def installed() -> dict[str, Metric]:
    """Those of the further metrics that are at hand, by name. Their weights they fetch themselves."""
    found = {}
    for name, (package, make) in FURTHER.items():
        if importlib.util.find_spec(package):
            try:
                found[name] = make()
            except Exception as error:  # another's package, which may want anything: a network, mostly
                print(f"{name} is left out: {package} is installed, but fails: {type(error).__name__}: {error}")
    return found


def _lpips() -> Metric:
    network: Any = importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()

    def lpips(pictures: Sequence[Tensor], full: Sequence[Tensor], prompt: str) -> float:
        if pictures is full:
            return math.nan
        with torch.inference_mode():
            return sum(network(*pair).item() for pair in zip(pictures, full, strict=True)) / len(pictures)

    return lpips


def _image_reward() -> Metric:
    model: Any = importlib.import_module("ImageReward").load("ImageReward-v1.0")

    def image_reward(pictures: Sequence[Tensor], full: Sequence[Tensor], prompt: str) -> float:
        return float(model.score(prompt, image_of(middle(pictures))))

    return image_reward


def _clip() -> Metric:
    package: Any = importlib.import_module("open_clip")
    model, _, prepare = package.create_model_and_transforms("ViT-L-14", pretrained="openai")
    tokenize = package.get_tokenizer("ViT-L-14")

    def clip(pictures: Sequence[Tensor], full: Sequence[Tensor], prompt: str) -> float:
        """100 · cosine."""
        with torch.inference_mode():
            image = model.encode_image(prepare(image_of(middle(pictures)))[None])
            return 100 * torch.cosine_similarity(image, model.encode_text(tokenize([prompt]))).item()

    return clip


FURTHER: dict[str, tuple[str, Callable[[], Metric]]] = {
    "lpips": ("lpips", _lpips), "image_reward": ("ImageReward", _image_reward), "clip": ("open_clip", _clip)}


def middle(pictures: Sequence[Tensor]) -> Tensor:
    """The picture that stands for a video."""
    return pictures[len(pictures) // 2]
