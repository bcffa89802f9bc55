"""Where features are taken: one site a file, each an AbstractSite. All patches here live inside a `with`."""

from __future__ import annotations

from .base import AbstractSite, Forecasts, Keep, SampleSize, replaced, watching_blocks
from .embedders import Embedders
from .hidden import HiddenSite
from .module import ModuleSite
from .output import OutputSite

SITES: dict[str, AbstractSite] = {"hidden": HiddenSite(), "module": ModuleSite(), "output": OutputSite()}
FALLBACK = ("module", "hidden", "output")  # where a model lacks one of them, the next one serves

__all__ = [
    "FALLBACK", "SITES", "AbstractSite", "Embedders", "Forecasts", "Keep", "SampleSize", "replaced", "watching_blocks",
]
