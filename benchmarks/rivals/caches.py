"""Rows of other engines on the tiny Flux's weights in diffusers' form: diffusers' TaylorSeer cache, and cache-dit."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models.flux_model import Flux
from benchmarks.models.tiny_flux import encode_prompts
from benchmarks.sampling.solvers import euler
from benchmarks.sampling.subjects import Job, TinyFlux, runs_of

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "ERROR")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import FluxTransformer2DModel, TaylorSeerCacheConfig

RENAMED = {  # the original's names -> diffusers', for all but what is split
    "img_in": "x_embedder", "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear", "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out", "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
    "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k",
}
SINGLE = {"modulation.lin": "norm.linear", "linear2": "proj_out", "norm.query_norm": "attn.norm_q",
          "norm.key_norm": "attn.norm_k"}
SPLIT = {"img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
         "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
         "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


def diffusers_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flux' weights under diffusers' names."""
    result: dict[str, Tensor] = {}
    for key, value in weights.items():
        module, kind = key.replace(".scale", ".weight").rsplit(".", 1)
        if module == "final_layer.adaLN_modulation.1":  # diffusers has scale before shift
            result[f"norm_out.linear.{kind}"] = torch.cat(value.chunk(2)[::-1])
            continue
        if module in RENAMED:
            result[f"{RENAMED[module]}.{kind}"] = value
            continue
        blocks, index, inner = module.split(".", 2)
        prefix = f"{'transformer_blocks' if blocks == 'double_blocks' else 'single_transformer_blocks'}.{index}"
        if inner in SPLIT:
            hidden = value.shape[0] // (7 if inner == "linear1" else 3)
            sizes = [hidden] * 3 + ([4 * hidden] if inner == "linear1" else [])
            for name, part in zip(SPLIT[inner], value.split(sizes), strict=True):
                result[f"{prefix}.{name}.{kind}"] = part
        else:
            result[f"{prefix}.{(DOUBLE if blocks == 'double_blocks' else SINGLE)[inner]}.{kind}"] = value
    return result


def in_diffusers(model: Flux) -> FluxTransformer2DModel:
    """The same network in diffusers' class, with the same weights in memory."""
    config = model.config
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            in_channels=4 * config.latent_channels, num_layers=config.double_blocks,
            num_single_layers=config.single_blocks, attention_head_dim=128, num_attention_heads=config.hidden // 128,
            joint_attention_dim=config.context_dim, pooled_projection_dim=config.pooled_dim,
            guidance_embeds=config.guidance)
    transformer.load_state_dict(diffusers_weights(model.state_dict()), assign=True)
    return transformer.eval()


def diffusers_velocity(transformer: FluxTransformer2DModel, x: Tensor, time: Tensor, context: Tensor,
                       guidance: Tensor) -> Tensor:
    """As the standalone Flux: latent (B, C, H, W), time and guidance (B,), context (B, T, context_dim)."""
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    with x.device:
        grid = torch.cartesian_prod(torch.zeros(1), torch.arange(float(rows)), torch.arange(float(columns)))
    with transformer.cache_context("prompt"):
        tokens = transformer(
            hidden_states=F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2), encoder_hidden_states=context,
            pooled_projections=x.new_zeros(len(x), transformer.config.pooled_projection_dim), timestep=time,
            guidance=guidance, img_ids=grid.to(x), txt_ids=x.new_zeros(context.shape[1], 3), return_dict=False)[0]
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), 2)


class DiffusersFlux(TinyFlux):
    """The tiny Flux in diffusers' class: the same velocity, engines of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = in_diffusers(self.model)

    def velocity(self, job: Job, x: Tensor, time: float) -> Tensor:
        return diffusers_velocity(self.transformer, x, torch.full((len(x),), time), encode_prompts(list(job.prompts)),
                                  torch.full((len(x),), job.guidance))

    def run(self, job: Job, steps: int) -> tuple[Tensor, int, float]:
        """Pixels, steps at which the blocks ran, seconds."""
        levels = self.levels(steps)
        with runs_of(self.transformer.single_transformer_blocks[-1].attn.to_q) as ran, torch.inference_mode():
            started = time.perf_counter()
            x = euler(lambda i, x: self.velocity(job, x, levels[i].time), self.start(job, levels[0]),
                      [*(level.sigma for level in levels), 0.0])
            seconds = time.perf_counter() - started
        return self.pixels(x), len(ran), seconds


@contextmanager
def diffusers_cache(flux: DiffusersFlux, **settings: Any) -> Iterator[None]:
    flux.transformer.enable_cache(TaylorSeerCacheConfig(taylor_factors_dtype=torch.float32, **settings))
    try:
        yield
    finally:
        flux.transformer.disable_cache()


@contextmanager
def cache_dit_cache(flux: DiffusersFlux, full_steps: tuple[int, ...], steps: int, order: int) -> Iterator[None]:
    """DBCache with a mask of steps (our schedule) and its TaylorSeer calibrator."""
    import cache_dit

    mask = [int(i in full_steps) for i in range(steps)]
    cache_dit.enable_cache(
        flux.transformer,
        cache_config=cache_dit.DBCacheConfig(
            Fn_compute_blocks=1, Bn_compute_blocks=0, num_inference_steps=steps, steps_computation_mask=mask,
            steps_computation_policy="static", max_warmup_steps=3, enable_separate_cfg=False),
        calibrator_config=cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order))
    try:
        yield
    finally:
        cache_dit.disable_cache(flux.transformer)


def flops_of(flux: DiffusersFlux, cache: Callable[[], Any], steps: int) -> int:
    """Counted FLOPs of a whole run of one sample."""
    job = Job(("red house day",))
    with cache(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        flux.run(job, steps)
    return counter.get_total_flops()
