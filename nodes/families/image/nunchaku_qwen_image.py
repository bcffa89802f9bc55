"""Qwen-Image and Qwen-Image-Edit as Nunchaku runs them: ComfyUI's class with other blocks, with or without offloading.

Nunchaku's Z-Image needs no file: it is ComfyUI's own class with other modules in its blocks.
"""

from __future__ import annotations

from dataclasses import replace

from .. import of_pack_class
from . import qwen_image

FAMILY = replace(
    qwen_image.FAMILY,
    name="Nunchaku Qwen-Image",
    matches=of_pack_class("models.qwenimage.NunchakuQwenImageTransformer2DModel"),
)
