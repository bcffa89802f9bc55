"""FLUX.1: dev, schnell, Kontext and Fill; and the blocks that later families took over from it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import BlockList, Family, Gates, of_class

PATHS = ("double_blocks", "single_blocks")


def own_double_gates(block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    """Of blocks that hold their modulations."""
    return tuple(part.gate for part in block.img_mod(args["vec"]))


def own_single_gates(block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    return (block.modulation(args["vec"])[0].gate,)


def given_double_gates(_block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    """Of blocks that get their modulations, the image's and the text's, as arguments."""
    return tuple(part.gate for part in args["vec"][0])


def given_single_gates(_block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    return (args["vec"].gate,)


def _blocks(double_gates: Gates, single_gates: Gates) -> tuple[BlockList, ...]:
    return (
        BlockList("double_blocks", "double_block", ("img_attn.proj", "img_mlp"), double_gates),
        BlockList("single_blocks", "single_block", ("linear2",), single_gates, joint=True),
    )


OWN_MODULATION = _blocks(own_double_gates, own_single_gates)
GIVEN_MODULATION = _blocks(given_double_gates, given_single_gates)

is_flux_class = of_class("comfy.ldm.flux.model.Flux")


def has_global_modulation(diffusion_model: nn.Module) -> bool:
    """FLUX.2 and its kin, which share the class."""
    return getattr(getattr(diffusion_model, "params", None), "global_modulation", False)


FAMILY = Family(
    name="Flux",
    matches=lambda model, kind: is_flux_class(model, kind) and not has_global_modulation(model),
    heads=("final_layer",),
    blocks=PATHS,
    embedders=("img_in", "pe_embedder", "txt_in"),
    image_embedder="img_in",
    modules=OWN_MODULATION,
)
