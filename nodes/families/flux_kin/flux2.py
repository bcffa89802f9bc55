"""FLUX.2: Flux's class with the modulations outside of the blocks."""

from __future__ import annotations

from .. import Family
from .flux import GIVEN_MODULATION, PATHS, has_global_modulation, is_flux_class

FAMILY = Family(
    name="Flux2",
    matches=lambda model, kind: is_flux_class(model, kind) and has_global_modulation(model),
    heads=("final_layer",),
    blocks=PATHS,
    embedders=("img_in", "pe_embedder", "txt_in"),
    image_embedder="img_in",
    modules=GIVEN_MODULATION,
)
