"""Image Fidelity: how far a picture is from another, for a run with the cache beside one without."""

from __future__ import annotations

from types import ModuleType

import torch
from comfy_api.latest import io
from torch import Tensor

from . import inputs

WINDOW = 11  # pixels, of SSIM (Wang et al. 2004)


class ImageFidelity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageFidelity",
            display_name="Image Fidelity",
            category=inputs.CATEGORY,
            description="Compares images with reference images one by one: PSNR, SSIM, a picture of the difference.",
            inputs=[
                io.Image.Input("image", tooltip="As made with FeMo Auto or a cache node."),
                io.Image.Input("reference", tooltip="As made without it: as many images, of the same size."),
                io.Float.Input(
                    "amplify", default=4.0, min=0.1, max=100.0, step=0.1,
                    tooltip="The difference picture shows differences so many times larger than they are."),
            ],
            outputs=[
                io.Float.Output(display_name="psnr", tooltip="Peak signal-to-noise ratio in dB, of all images at once. "
                                                             "Roughly: above 40 hardly to be seen, below 25 another "
                                                             "picture. 1000 where images are equal."),
                io.Float.Output(display_name="ssim", tooltip="Structural similarity, mean of the images; 1 is equal."),
                io.Image.Output(display_name="difference", tooltip="|image − reference|, amplified."),
                io.String.Output(display_name="text", tooltip="Both figures for each image."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, reference, amplify) -> io.NodeOutput:
        image, reference = image[..., :3], reference[..., :3]
        if image.shape != reference.shape:
            raise ValueError(
                f"image and reference must be as many and of one size; got {_words(image)} and {_words(reference)}. "
                "Scale or crop one to the other, or take the same seed and batch size")
        if min(image.shape[1:3]) < WINDOW:
            raise ValueError(f"image must be {WINDOW} pixels or more a side for SSIM; got {_words(image)}")
        figures = [_figures(one, other) for one, other in zip(image, reference, strict=True)]
        text = "\n".join(f"image {i + 1}: PSNR {psnr:.2f} dB, SSIM {ssim:.4f}"
                         for i, (psnr, ssim) in enumerate(figures))
        psnr = _psnr(image.float(), reference.float())
        ssim = sum(ssim for _, ssim in figures) / len(figures)
        return io.NodeOutput(psnr, ssim, ((image - reference).abs() * amplify).clamp(0, 1), text, ui={"text": (text,)})


EQUAL = 1000.0  # dB: JSON has no infinity


def _figures(image: Tensor, reference: Tensor) -> tuple[float, float]:
    """PSNR and SSIM of (H, W, 3) in 0 … 1."""
    one, other = (part.float().movedim(-1, 0)[None] for part in (image, reference))
    return _psnr(one, other), _metrics().ssim(one, other, window_size=WINDOW, max_val=1.0).mean().item()


def _psnr(one: Tensor, other: Tensor) -> float:
    return EQUAL if torch.equal(one, other) else _metrics().psnr(one, other, max_val=1.0).item()


def _metrics() -> ModuleType:
    """kornia's, which ComfyUI brings. Imported when it is needed: it takes its time."""
    try:
        from kornia import metrics
    except ImportError as error:
        raise RuntimeError("Image Fidelity needs kornia, which ComfyUI's own requirements list: "
                           "pip install -r requirements.txt in ComfyUI's folder") from error
    return metrics


def _words(images: Tensor) -> str:
    count, height, width, _ = images.shape
    return f"{count} of {width} × {height}"
