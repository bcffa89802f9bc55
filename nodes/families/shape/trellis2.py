"""Trellis 2."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Trellis 2",
    matches=of_class("comfy.ldm.trellis2.model.Trellis2"),
    at_output="its hidden states are sparse tensors",
)
