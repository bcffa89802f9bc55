"""Stable Cascade, stages C and B."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Stable Cascade",
    matches=of_class("comfy.ldm.cascade.stage_c.StageC", "comfy.ldm.cascade.stage_b.StageB"),
    at_output="its levels are not blocks in a row that can be left out",
)
