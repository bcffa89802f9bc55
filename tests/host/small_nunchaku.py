"""Nunchaku's models, small: stand-ins of our own for what needs CUDA.

They have its classes' names, parts and ways of calling, as read in ComfyUI-nunchaku 1.0.2 to 1.2.1 and nunchaku
1.2.0dev. The arithmetic is ours, and its own code was not run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import small_nunchaku_flux as flux
import torch
from comfy_host import comfy
from small_images import IMAGES
from small_models import SmallModel
from small_nunchaku_flux import LAYERS, RAN, drawn, named
from torch import nn

# Qwen-Image

class NunchakuQwenImageTransformerBlock(nn.Module):
    """Queries, keys and values are of one layer."""

    def __init__(self, width: int, seed: int):
        super().__init__()
        self.attn = nn.Module()
        self.attn.to_qkv, self.attn.add_qkv_proj = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        self.img_mlp, self.gates = nn.Linear(width, width), nn.Linear(width, width)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(drawn(*parameter.shape, seed=seed))

    def forward(self, hidden_states, encoder_hidden_states, encoder_hidden_states_mask, temb, image_rotary_emb=None,
                timestep_zero_index=None, transformer_options=None):
        RAN.append("block")
        texts, gate = encoder_hidden_states.shape[1], 0.3 * self.gates(temb[: len(hidden_states)])[:, None]
        query, key, value = torch.cat(
            [self.attn.add_qkv_proj(encoder_hidden_states), self.attn.to_qkv(hidden_states)], dim=1).chunk(3, dim=-1)
        joint = nn.functional.scaled_dot_product_attention(query, key, value)
        hidden_states = hidden_states + gate * joint[:, texts:]
        return (encoder_hidden_states + gate * joint[:, :texts],
                hidden_states + gate * torch.tanh(self.img_mlp(hidden_states)))


@named("models.qwenimage.NunchakuQwenImageTransformer2DModel")
class NunchakuQwenImageTransformer2DModel(comfy.ldm.qwen_image.model.QwenImageTransformer2DModel):
    """Its own forward goes through the blocks as ComfyUI's does."""

    offload = False


def qwen_image(model: Any) -> None:
    network = model.model.diffusion_model
    network.__class__ = NunchakuQwenImageTransformer2DModel
    network.transformer_blocks = nn.ModuleList(
        NunchakuQwenImageTransformerBlock(network.inner_dim, seed) for seed in range(LAYERS))


# Z-Image

class ComfyNunchakuZImageAttention(nn.Module):
    def __init__(self, attention: nn.Module):
        super().__init__()
        self.qkv, self.out = attention.qkv, attention.out
        self.width = attention.out.in_features

    def forward(self, x, x_mask, freqs_cis, transformer_options=None):
        RAN.append("block")
        assert freqs_cis.ndim == 0  # as the hook makes it
        query, key, value = (self.qkv(x) + freqs_cis).split(
            [self.width, *2 * [(self.qkv.out_features - self.width) // 2]], dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(query, key, value))


class ComfyNunchakuZImageFeedForward(nn.Module):
    """Two of its layers are one."""

    def __init__(self, feed_forward: nn.Module):
        super().__init__()
        self.w13, self.w2 = copy.deepcopy(feed_forward.w1), feed_forward.w2

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w13(x)))


def z_image(model: Any) -> None:
    """ComfyUI's class, with hooks that stay, and for each call hooks on those attentions that its lists then have."""
    network, handles = model.model.diffusion_model, []
    lists = ("layers", "noise_refiner", "context_refiner")
    for block in (block for path in lists for block in network.get_submodule(path)):
        block.attention = ComfyNunchakuZImageAttention(block.attention)
        block.feed_forward = ComfyNunchakuZImageFeedForward(block.feed_forward)

    def packed(_attention, args, kwargs):
        return (*args[:2], args[2].float().mean(), *args[3:]), kwargs

    def before(network, _args):
        handles.extend(block.attention.register_forward_pre_hook(packed, with_kwargs=True)
                       for path in lists for block in network.get_submodule(path))

    def after(*_):
        while handles:
            handles.pop().remove()

    network.register_forward_pre_hook(before)
    network.register_forward_hook(after, always_call=True)
    network.norm_final = None


_host = {small.name: small for small in IMAGES}
STAND_INS: dict[str, tuple[SmallModel, Callable[[Any], None]]] = {
    "Flux": (_host["FLUX.1 dev"], flux.plain),
    "Flux, its cache off again": (_host["FLUX.1 dev"], flux.with_its_cache_off_again),
    "Flux with PuLID": (_host["FLUX.1 dev"], flux.with_pulid),
    "Flux with IP-Adapter": (_host["FLUX.1 dev"], flux.with_ip_adapter),
    "Flux Kontext": (_host["FLUX.1 Kontext"], flux.plain),
    "Qwen-Image": (_host["Qwen-Image"], qwen_image),
    "Qwen-Image-Edit": (_host["Qwen-Image-Edit"], qwen_image),
    "Z-Image": (_host["Z-Image"], z_image),
}
