"""FLUX.1: dev, schnell, Kontext and Fill; and the blocks that later families took over from it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import BlockList, Branch, Family, of_class

DOUBLE = (Branch("img_attn.proj", "img"), Branch("img_mlp", "img"), Branch("txt_attn.proj", "txt"),
          Branch("txt_mlp", "txt"))
SINGLE = (Branch("linear2", "img"),)
PATHS = ("double_blocks", "single_blocks")


def own_double_gates(block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    """Of blocks that hold their modulations."""
    return tuple(part.gate for modulation in (block.img_mod, block.txt_mod) for part in modulation(args["vec"]))


def own_single_gates(block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    return (block.modulation(args["vec"])[0].gate,)


def given_double_gates(_block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    """Of blocks that get their modulations as arguments."""
    return tuple(part.gate for parts in args["vec"] for part in parts)


def given_single_gates(_block: nn.Module, args: dict[str, Any]) -> tuple[Tensor, ...]:
    return (args["vec"].gate,)


OWN_MODULATION = (
    BlockList("double_blocks", "double_block", ("img", "txt"), DOUBLE, own_double_gates),
    BlockList("single_blocks", "single_block", ("img",), SINGLE, own_single_gates, joint=True),
)
GIVEN_MODULATION = (
    BlockList("double_blocks", "double_block", ("img", "txt"), DOUBLE, given_double_gates),
    BlockList("single_blocks", "single_block", ("img",), SINGLE, given_single_gates, joint=True),
)

is_flux_class = of_class("comfy.ldm.flux.model.Flux")


def has_global_modulation(diffusion_model: nn.Module) -> bool:
    """FLUX.2 and its kin, which share the class."""
    return getattr(diffusion_model.params, "global_modulation", False)


FAMILY = Family(
    name="Flux",
    matches=lambda model: is_flux_class(model) and not has_global_modulation(model),
    heads=("final_layer",),
    blocks=PATHS,
    embedders=("img_in", "pe_embedder", "txt_in"),
    positions=("pe_embedder",),
    modules=OWN_MODULATION,
)
