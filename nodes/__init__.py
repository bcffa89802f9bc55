"""The ComfyUI side: nodes, and what patches a model. Imported by ComfyUI only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .auto import FeMoAuto
from .calibrate import FeMoCalibrate
from .dit_class_label import DiTClassLabel
from .dit_loader import DiTLoader
from .femo import FeMoCache
from .image_fidelity import ImageFidelity
from .report import FeMoReport
from .taylorseer import TaylorSeerCache


class FemoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FeMoAuto, FeMoCache, TaylorSeerCache, FeMoCalibrate, FeMoReport, ImageFidelity, DiTLoader,
                DiTClassLabel]
