"""FLUX.1: dev, schnell, Kontext and Fill."""

from __future__ import annotations

from torch import nn

from . import BlockList, Branch, Family


def _is_flux(diffusion_model: nn.Module) -> bool:
    from comfy.ldm.flux.model import Flux

    if type(diffusion_model) is not Flux:
        return False
    # The same class serves FLUX.2 (modulations outside the blocks) and models without a pooled prompt: other families.
    params = diffusion_model.params
    return not getattr(params, "global_modulation", False) and params.vec_in_dim is not None


FAMILY = Family(
    name="Flux",
    matches=_is_flux,
    head="final_layer",
    block_lists=(
        BlockList("double_blocks", "double_block", ("img", "txt"), (
            Branch("img_attn.proj", "img", "img_mod", 0),
            Branch("img_mlp", "img", "img_mod", 1),
            Branch("txt_attn.proj", "txt", "txt_mod", 0),
            Branch("txt_mlp", "txt", "txt_mod", 1),
        )),
        BlockList("single_blocks", "single_block", ("img",), (
            Branch("linear2", "img", "modulation", 0),
        )),
    ),
)
