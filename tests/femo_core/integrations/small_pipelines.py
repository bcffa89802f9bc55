"""diffusers' pipelines around small transformers of random weights, without text encoders: their denoising loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

STEPS = 12
BATCH = 2


@dataclass(frozen=True)
class Small:
    """A pipeline's class, its transformer, and what it is called with."""

    name: str
    pipeline: str
    transformer: Callable[..., nn.Module]
    arguments: Callable[[], dict[str, Any]]
    scheduler: Callable[[], Any] = lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    more: dict[str, Any] = field(default_factory=dict)  # for the transformer

    def build(self) -> Any:
        """The pipeline. Its text encoders are None."""
        torch.manual_seed(0)
        transformer = self.transformer(**self.more).eval().requires_grad_(False)
        for parameter in transformer.parameters():  # gates and biases too, which some start at 0
            parameter.copy_(0.08 * torch.randn(parameter.shape))
        kind = getattr(diffusers, self.pipeline)
        parts = {"transformer": transformer, "scheduler": self.scheduler(), **self._vae()}
        missing = dict.fromkeys(kind._get_signature_keys(kind)[0] - parts.keys())
        pipeline = kind(**parts, **missing)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def run(self, pipeline: Any, seed: int = 0, steps: int = STEPS, **more: Any) -> Tensor:
        arguments = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(seed), **self.arguments()}
        return pipeline(**{**arguments, "return_dict": False, **more})[0]

    def _vae(self) -> dict[str, Any]:
        """DiT's pipeline always decodes."""
        if self.pipeline != "DiTPipeline":
            return {}
        return {"vae": diffusers.AutoencoderKL(latent_channels=4, block_out_channels=(8,), norm_num_groups=4).eval()}


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(seed))


def prompts(tokens: int, width: int, pooled: int = 0, masks: str = "") -> dict[str, Any]:
    """Embeddings of a prompt and its opposite, as pipelines take them."""
    found: dict[str, Any] = {"output_type": "latent"}
    for seed, sign in enumerate(("", "negative_")):
        found[f"{sign}prompt_embeds"] = noise(seed, tokens, width)
        if pooled:
            found[f"{sign}pooled_prompt_embeds"] = noise(2 + seed, pooled)
        if masks:
            found[f"{sign}{masks}"] = torch.ones(BATCH, tokens, dtype=torch.long)
    return found


FLUX = Small(
    "Flux", "FluxPipeline",
    partial(
        diffusers.FluxTransformer2DModel,
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 6, 6)),
    lambda: {**prompts(8, 32, pooled=16), "true_cfg_scale": 2.0, "height": 64, "width": 64})
DIT = Small(
    "DiT", "DiTPipeline",
    partial(
        diffusers.DiTTransformer2DModel,
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=3, sample_size=8),
    lambda: {"class_labels": [3, 7], "output_type": "pt"},
    lambda: diffusers.DDIMScheduler(clip_sample=False))
SD3 = Small(
    "SD3", "StableDiffusion3Pipeline",
    partial(
        diffusers.SD3Transformer2DModel,
        sample_size=8, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=64, pooled_projection_dim=16, pos_embed_max_size=8,
        dual_attention_layers=(0,), qk_norm="rms_norm"),
    lambda: {**prompts(8, 32, pooled=16), "height": 64, "width": 64})
QWEN = Small(
    "Qwen-Image", "QwenImagePipeline",
    partial(
        diffusers.QwenImageTransformer2DModel,
        in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, axes_dims_rope=(4, 6, 6)),
    lambda: {**prompts(8, 32, masks="prompt_embeds_mask"), "height": 64, "width": 64})
HUNYUAN_VIDEO = Small(
    "HunyuanVideo", "HunyuanVideoPipeline",
    partial(
        diffusers.HunyuanVideoTransformer3DModel,
        in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=16, num_layers=2, num_single_layers=2,
        num_refiner_layers=1, text_embed_dim=32, pooled_projection_dim=16, rope_axes_dim=(4, 6, 6)),
    lambda: {**prompts(8, 32, pooled=16, masks="prompt_attention_mask"), "true_cfg_scale": 2.0,
             "height": 64, "width": 64, "num_frames": 5})
WAN = Small(
    "Wan", "WanPipeline",
    partial(
        diffusers.WanTransformer3DModel,
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=32, freq_dim=32,
        ffn_dim=128, num_layers=3, rope_max_seq_len=32),
    lambda: {**prompts(8, 32), "height": 64, "width": 64, "num_frames": 5},
    lambda: diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0))

ALL = (FLUX, DIT, SD3, QWEN, HUNYUAN_VIDEO, WAN)
