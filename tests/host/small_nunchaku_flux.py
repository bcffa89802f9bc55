"""FLUX.1 as Nunchaku runs it, small: a stand-in, as small_nunchaku.py says."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

FOLDER = "/anywhere/custom_nodes/ComfyUI-nunchaku"  # a pack's module is called by the path of its folder
WIDTH, TEXT, POOLED, PATCH, CHANNELS = 64, 64, 32, 2, 16
LAYERS = 5
RAN: list[str] = []  # blocks that ran
_cache_context: list[dict[str, Tensor]] = []  # of the first-block cache, while a call has one


def named(path: str) -> Callable[[type], type]:
    """Gives a class of the pack's its name."""
    def rename(kind: type) -> type:
        module, _, name = path.rpartition(".")
        kind.__module__, kind.__name__, kind.__qualname__ = f"{FOLDER}.{module}", name, name
        return kind
    return rename


def drawn(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / math.sqrt(shape[-1])


class AllBlocks:
    """In the place of what is compiled: no module, one for all blocks, with a first one that can run by itself."""

    def __init__(self) -> None:
        self.weights = [drawn(WIDTH, WIDTH, seed=seed) for seed in range(LAYERS)]

    def forward(self, state: Tensor, temb: Tensor, rotary: Tensor, first: int = 0, until: int = LAYERS) -> Tensor:
        for weight in self.weights[first:until]:
            RAN.append("block")
            mixed = state + state.mean(1, keepdim=True) + temb[:, None] + rotary
            state = state + 0.5 * torch.tanh(mixed @ weight)
        return state


class NunchakuFluxTransformerBlocks(nn.Module):
    def __init__(self, m: AllBlocks):
        super().__init__()
        self.m = m

    def forward(self, hidden_states, temb, encoder_hidden_states, image_rotary_emb, id_embeddings=None, id_weight=None,
                joint_attention_kwargs=None, controlnet_block_samples=None, controlnet_single_block_samples=None,
                skip_first_layer=False):
        texts = encoder_hidden_states.shape[1]
        assert image_rotary_emb.shape[:3] == (1, 1, texts + hidden_states.shape[1])
        state = self.run(torch.cat([encoder_hidden_states, hidden_states], dim=1), temb, image_rotary_emb.flatten(3)[0])
        if id_embeddings is not None:
            state = state + id_weight * self.pulid_ca[0](id_embeddings)
        return state[:, :texts], state[:, texts:]

    def run(self, state, temb, rotary):
        return self.m.forward(state, temb, rotary)


class FluxCachedTransformerBlocks(NunchakuFluxTransformerBlocks):
    """The first-block cache: where the first block did about what it did before, what the others did then is added."""

    def __init__(self, transformer: nn.Module, threshold: float):
        super().__init__(transformer.transformer_blocks[0].m)
        self.transformer_blocks = transformer.transformer_blocks
        self.residual_diff_threshold_multi = threshold

    def run(self, state, temb, rotary):
        kept, first = _cache_context[-1], self.m.forward(state, temb, rotary, until=1)
        if "first" in kept:
            change = (first - state - kept["first"]).abs().mean() / kept["first"].abs().mean()
            if change < self.residual_diff_threshold_multi:
                return first + kept["others"]
        kept["first"], out = first - state, self.m.forward(first, temb, rotary, first=1)
        kept["others"] = out - first
        return out


class IPATransformerBlocks(FluxCachedTransformerBlocks):
    """With what an image adds to each."""

    def __init__(self, transformer: nn.Module):
        super().__init__(transformer, -1)
        self.image_embeds = drawn(1, 1, WIDTH)

    def run(self, state, temb, rotary):
        return self.m.forward(state, temb, rotary) + 0.1 * self.image_embeds


class Positions(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        angles = ids.sum(-1).float()[:, None] * torch.linspace(0.1, 1, WIDTH // 2)
        return torch.stack([angles.sin(), angles.cos()], dim=-1)[None, None, :, :, None]  # (1, 1, tokens, ·, 1, 2)


class Times(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pooled = nn.Linear(POOLED, WIDTH)

    def forward(self, timestep: Tensor, *guidance_and_pooled: Tensor) -> Tensor:
        *_, pooled = guidance_and_pooled
        return torch.cos(timestep[:, None] / 1000 * torch.linspace(0, 3, WIDTH)) + self.pooled(pooled)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(WIDTH, 2 * WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        scale, shift = self.linear(conditioning).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class NunchakuFluxTransformer2dModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x_embedder = nn.Linear(CHANNELS * PATCH**2, WIDTH)
        self.context_embedder, self.time_text_embed, self.pos_embed = nn.Linear(TEXT, WIDTH), Times(), Positions()
        self.transformer_blocks = nn.ModuleList([NunchakuFluxTransformerBlocks(AllBlocks())])
        self.single_transformer_blocks = nn.ModuleList()
        self.norm_out, self.proj_out = Norm(), nn.Linear(WIDTH, CHANNELS * PATCH**2)

    def forward(self, hidden_states, encoder_hidden_states=None, pooled_projections=None, timestep=None, img_ids=None,
                txt_ids=None, guidance=None, controlnet_block_samples=None, controlnet_single_block_samples=None,
                **own):
        hidden_states = self.x_embedder(hidden_states)
        timestep = timestep.to(hidden_states.dtype) * 1000
        known = (pooled_projections,) if guidance is None else (guidance, pooled_projections)
        temb = self.time_text_embed(timestep, *known)
        encoder_hidden_states, hidden_states = self.transformer_blocks[0](
            hidden_states=hidden_states, encoder_hidden_states=self.context_embedder(encoder_hidden_states), temb=temb,
            image_rotary_emb=self.pos_embed(torch.cat([txt_ids[0], img_ids[0]])), joint_attention_kwargs=None,
            controlnet_block_samples=controlnet_block_samples,
            controlnet_single_block_samples=controlnet_single_block_samples, **own)
        return SimpleNamespace(sample=self.proj_out(self.norm_out(hidden_states, temb)))


@named("wrappers.flux.ComfyFluxWrapper")
class ComfyFluxWrapper(nn.Module):
    def __init__(self, model: NunchakuFluxTransformer2dModel):
        super().__init__()
        self.model, self.dtype, self.config = model, torch.float32, {"guidance_embed": True, "patch_size": PATCH}
        self.pulid_pipeline = self.customized_forward = self._prev_timestep = self._context = None

    def patches(self, x: Tensor, index: int = 0) -> tuple[Tensor, Tensor]:
        tokens = nn.functional.unfold(x, PATCH, stride=PATCH).mT
        ids = torch.stack([torch.full((tokens.shape[1],), float(index)), torch.arange(tokens.shape[1])], dim=-1)
        return tokens, ids.expand(len(x), -1, -1)

    def forward(self, x, timestep, context, y, guidance, control=None, transformer_options=None, **kwargs):
        model, level = self.model, timestep.flatten()[0].item()
        images = [self.patches(x), *(self.patches(image, 1) for image in kwargs.get("ref_latents") or ())]
        img, ids = (torch.cat(parts, dim=1) for parts in zip(*images, strict=True))
        samples = {f"controlnet_{name}_samples": control and [part.to(x.dtype) for part in control[key]]
                   for name, key in (("block", "input"), ("single_block", "output"))}
        if self.pulid_pipeline is not None:
            model.transformer_blocks[0].pulid_ca = self.pulid_pipeline.pulid_ca
        caches = getattr(model, "residual_diff_threshold_multi", 0) != 0 or getattr(model, "_is_cached", False)
        if caches and (self._prev_timestep is None or self._prev_timestep < level + 1e-5):
            self._context = {}
        self._prev_timestep = level
        if caches:
            _cache_context.append(self._context)
        try:
            out = (self.customized_forward or nn.Module.__call__)(
                model, hidden_states=img, encoder_hidden_states=context, pooled_projections=y, timestep=timestep,
                img_ids=ids, txt_ids=torch.zeros(len(x), context.shape[1], 2), guidance=guidance, **samples).sample
        finally:
            if caches:
                _cache_context.pop()
        if self.pulid_pipeline is not None:
            model.transformer_blocks[0].pulid_ca = None
        return nn.functional.fold(out[:, : images[0][0].shape[1]].mT, x.shape[-2:], PATCH, stride=PATCH)


def load(network: ComfyFluxWrapper, cache_threshold: float) -> None:
    """What the loader does, whenever it is executed, with the model that it keeps."""
    model = network.model
    if getattr(model, "_is_cached", False):
        model.cached_transformer_blocks[0].residual_diff_threshold_multi = cache_threshold
        return
    cached = nn.ModuleList([FluxCachedTransformerBlocks(model, cache_threshold)])
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not _cache_context:
            return original(*args, **kwargs)
        with mock.patch.multiple(model, transformer_blocks=cached, single_transformer_blocks=nn.ModuleList()):
            model._is_cached, model.cached_transformer_blocks = True, cached
            return original(*args, **kwargs)

    model.forward, model.residual_diff_threshold_multi = forward, cache_threshold


def plain(model: Any, cache_threshold: float = 0.0) -> None:
    network = ComfyFluxWrapper(NunchakuFluxTransformer2dModel()).eval().requires_grad_(False)
    for seed, parameter in enumerate(network.parameters()):
        parameter.copy_(drawn(*parameter.shape, seed=seed))
    load(network, cache_threshold)
    model.model.diffusion_model = network


def with_its_cache_off_again(model: Any) -> None:
    plain(model, 0.3)
    network = model.model.diffusion_model
    with torch.inference_mode():
        network(torch.zeros(1, CHANNELS, 4, 4), torch.ones(1), torch.zeros(1, 4, TEXT), torch.zeros(1, POOLED),
                torch.ones(1))
    network._prev_timestep = None
    load(network, 0)


def with_pulid(model: Any) -> None:
    plain(model)
    network = model.model.diffusion_model
    attention = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
    attention.weight.copy_(drawn(WIDTH, WIDTH))
    network.pulid_pipeline = SimpleNamespace(pulid_ca=nn.ModuleList([attention]))
    network.customized_forward = partial(
        NunchakuFluxTransformer2dModel.forward, id_embeddings=drawn(1, 1, WIDTH), id_weight=0.2)


def with_ip_adapter(model: Any) -> None:
    """Its blocks are put in their place within each call, over what is there then."""
    plain(model)
    transformer = model.model.diffusion_model.model
    blocks, original = nn.ModuleList([IPATransformerBlocks(transformer)]), transformer.forward
    transformer.transformer_blocks = blocks

    def forward(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.multiple(transformer, transformer_blocks=blocks, single_transformer_blocks=nn.ModuleList()):
            return original(*args, **kwargs)

    transformer.forward = forward
