"""SeedVR2."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="SeedVR2",
    matches=of_class("comfy.ldm.seedvr.model.NaDiT"),
    at_output="its hidden state is one list of the tokens of all samples",
)
