"""FLUX.1 as Nunchaku runs it: one module of its own in the blocks' place, within a model with diffusers' names.

Once its first-block cache was on it has a second such module, which serves from then on, even with the cache off.
"""

from __future__ import annotations

from .. import Family, of_pack_class

FAMILY = Family(
    name="Nunchaku Flux",
    matches=of_pack_class("wrappers.flux.ComfyFluxWrapper"),
    heads=("model.norm_out",),
    fused=("model.transformer_blocks", "model.cached_transformer_blocks?"),
    states=("encoder_hidden_states", "hidden_states"),
    embedders=("model.context_embedder", "model.pos_embed", "model.x_embedder"),
    patch=2,
)
