"""Where features are taken: one site a file, each an AbstractSite. All patches here live inside a `with`."""

from __future__ import annotations

from .base import AbstractSite, Forecast, watching_blocks
from .hidden import HiddenSite
from .module import ModuleSite
from .output import OutputSite

SITES: dict[str, AbstractSite] = {"hidden": HiddenSite(), "module": ModuleSite(), "output": OutputSite()}

__all__ = ["SITES", "AbstractSite", "Forecast", "watching_blocks"]
