"""PiD, PixelDiT's decoder of other models' latents."""

from __future__ import annotations

from .. import PARTS_ARE_ROWS, Family, of_class

FAMILY = Family(
    name="PiD",
    matches=of_class("comfy.ldm.pixeldit.pid.PidNet"),
    heads=("final_layer",),
    view=PARTS_ARE_ROWS,
    blocks=("patch_blocks", "pixel_blocks"),
    embedders=("lq_proj", "pit_lq_gate?", "pixel_embedder", "s_embedder", "t_embedder", "y_embedder"),
    patch="",
)
