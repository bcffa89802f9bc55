"""Z-Image in pixel space: its head takes an image's pixels, and the hidden state beside them."""

from __future__ import annotations

from .. import Family, HeadView, of_class

FAMILY = Family(
    name="Z-Image pixel space",
    matches=of_class("comfy.ldm.lumina.model.NextDiTPixelSpace"),
    heads=("dec_net",),
    view=HeadView(
        lambda args, samples: args[1].unflatten(0, (samples, -1)),  # (B · patches, D)
        lambda args, feature: (args[0], feature.flatten(0, 1), *args[2:])),
    heads_see_references=False,
    blocks=("context_refiner", "noise_refiner", "layers"),
    embedders=("cap_embedder", "rope_embedder", "x_embedder"),
)
