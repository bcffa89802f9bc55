"""DiT checkpoints: any known layout turned into the original's key names, the model's size, what a wrong file is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .model import DiT, DiTConfig

Weights = dict[str, Tensor]

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "module.")  # ComfyUI's saved models, data-parallel training
HEADS = {1152: 16}  # XL; S, B and L have 64 channels a head

# diffusers' DiTTransformer2DModel -> the original. Its query, key and value, and its embedders, which it keeps once
# per block, are put together below.
OUTER = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
INNER = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
EMBEDDERS = {
    "timestep_embedder.linear_1": "t_embedder.mlp.0",
    "timestep_embedder.linear_2": "t_embedder.mlp.2",
    "class_embedder.embedding_table": "y_embedder.embedding_table",
}

# What other files are recognised by, the telling ones first: a part of any key.
KINDS = (
    (("lora_up.", "lora_A.", "lora_unet_"), "a LoRA: load it with a LoRA loader, after the model"),
    (("y_embedder.y_proj", "adaln_single", "scale_shift_table"), "PixArt or another model that takes text"),
    (("joint_blocks.",), "Stable Diffusion 3"),
    (("double_blocks.", "single_transformer_blocks."), "Flux or HunyuanVideo"),
    (("input_blocks.", "down_blocks.0.resnets", "down_blocks.0.attentions"), "a U-Net, such as Stable Diffusion's"),
    (("first_stage_model.", "decoder.up", "decoder.mid"), "a VAE"),
    (("text_model.", "cond_stage_model.", "embed_tokens.", "shared.weight"), "a text encoder"),
    (("transformer_blocks.",), "another diffusion transformer of diffusers"),
    (("blocks.",), "another diffusion transformer"),
)


def weights_of(content: Mapping[str, Any], name: str) -> Weights:
    """Weights under the original's names from what a file holds. `name` is the file's, for errors.

    Takes the averaged weights of a training checkpoint, and undoes prefixes and diffusers' names. Raises ValueError
    for a file that is not a DiT, saying what it seems to be.
    """
    for part in ("ema", "model"):  # a training checkpoint of the original: weights, their average, the optimiser
        if isinstance(content.get(part), Mapping):
            content = content[part]
            break
    weights: Weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if any(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight" in weights:
        weights = _from_diffusers(weights, name)
    _check(weights, name)
    return weights


def config_of(weights: Weights) -> DiTConfig:
    """Every size from the shapes of `weights` (the original's names), but for the number of heads, which leaves no
    trace in them: it is the published one for the width, or 0 where none has this width."""
    hidden, in_channels, patch, _ = weights["x_embedder.proj.weight"].shape
    return DiTConfig(
        hidden=hidden,
        depth=1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks.")),
        heads=HEADS.get(hidden, 0 if hidden % 64 else hidden // 64),
        patch=patch,
        in_channels=in_channels,
        out_channels=weights["final_layer.linear.weight"].shape[0] // patch**2,
        classes=weights["y_embedder.embedding_table.weight"].shape[0] - 1,
        grid=round(weights["pos_embed"].shape[1] ** 0.5) if "pos_embed" in weights else None,
        mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] // hidden,
    )


def _from_diffusers(weights: Weights, name: str) -> Weights:
    result: Weights = {}
    for key, value in weights.items():
        module, _, kind = key.rpartition(".")
        if module in OUTER:
            result[f"{OUTER[module]}.{kind}"] = value
            continue
        _, index, inner = module.split(".", 2) if module.startswith("transformer_blocks.") else ("", "", module)
        if inner in INNER:
            result[f"blocks.{index}.{INNER[inner]}.{kind}"] = value
        elif inner == "attn1.to_q":
            parts = [weights[f"transformer_blocks.{index}.attn1.to_{part}.{kind}"] for part in "qkv"]
            result[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(parts)
        elif inner.startswith("norm1.emb."):
            target = f"{EMBEDDERS[inner.removeprefix('norm1.emb.')]}.{kind}"
            if not torch.equal(result.setdefault(target, value), value):
                raise ValueError(
                    f"{name}: block {index} has an embedder of its own ({key} differs from block 0's), which DiT does "
                    "not have: the file was trained further in diffusers with its copies left free")
        elif inner not in ("attn1.to_k", "attn1.to_v"):
            result[key] = value  # unknown: _check names it
    return result


def _check(weights: Weights, name: str) -> None:
    """Every weight that a DiT of this size has, in its shape, and no other."""
    if not {"x_embedder.proj.weight", "y_embedder.embedding_table.weight", "final_layer.linear.weight",
            "blocks.0.mlp.fc1.weight"} <= weights.keys() or weights["x_embedder.proj.weight"].ndim != 4:
        raise ValueError(f"{name} is not a DiT checkpoint. It seems to be {kind_of(weights)}.")
    config = config_of(weights)
    if not config.heads:
        raise ValueError(
            f"{name}: a width of {config.hidden} channels is none of DiT's (multiples of 64, or 1152): the number of "
            "attention heads can't be told")
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in DiT(config).state_dict().items()}
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        raise ValueError(f"{name}: an incomplete DiT, {len(missing)} weights are missing, such as {missing[0]}")
    unknown = sorted(weights.keys() - wanted.keys())
    if unknown:
        raise ValueError(
            f"{name}: like a DiT, but with {len(unknown)} weights that DiT does not have, such as {unknown[0]}. It "
            f"seems to be {kind_of(weights)}.")
    for key, shape in wanted.items():
        if weights[key].shape != shape:
            raise ValueError(f"{name}: {key} has shape {tuple(weights[key].shape)}; a DiT of this size has "
                             f"{tuple(shape)}")


def kind_of(weights: Mapping[str, Any]) -> str:
    """What a file that is no DiT seems to be."""
    if not weights:
        return "a file without any tensors"
    for marks, kind in KINDS:
        if any(mark in key for key in weights for mark in marks):
            return kind
    return f"something unknown: it has {len(weights)} tensors, such as {', '.join(sorted(weights)[:3])}"
