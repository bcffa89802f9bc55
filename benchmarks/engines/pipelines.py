"""The small models in diffusers' pipelines, forecast by femo_core.integrations.diffusers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.pack.dit.checkpoint import EMBEDDERS, INNER, OUTER
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.models.tiny_dit import NULL_CLASS, classes_of
from benchmarks.models.tiny_flux import encode_prompts
from benchmarks.rivals.caches import DiffusersFlux
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux, normal
from femo_core import RunReport
from femo_core.integrations.diffusers import disable_femo, enable_femo, last_report
from femo_core.predictor import AbstractPredictor
from femo_core.schedule import AbstractSchedule

from diffusers import (  # isort: skip  (after rivals, which keeps its warnings quiet)
    DDIMScheduler, DiTPipeline, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, FluxPipeline)

IMAGENET = 1000  # DiTPipeline takes this class for the null class


class Pipeline:
    """A small model in the pipeline of its kind, without text encoders and VAE."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.pipe: Any = _flux_pipeline() if isinstance(subject, TinyFlux) else _dit_pipeline(subject)
        self.pipe.set_progress_bar_config(disable=True)

    def run(self, job: Job, steps: int, predictor: AbstractPredictor, schedule: AbstractSchedule,
            site: str = "hidden") -> tuple[Tensor, RunReport]:
        """What the sampler returns, as `forecasting.sample` does (the DiT's within −1 … 1), and what the run did."""
        transformer = self.pipe.transformer
        enable_femo(transformer, schedule, predictor, scheduler=self.pipe.scheduler, site=site)
        result = self._flux(job, steps) if isinstance(self.subject, TinyFlux) else self._dit(job, steps)
        report = last_report(transformer)
        disable_femo(transformer)
        assert report
        return result, report

    def _flux(self, job: Job, steps: int) -> Tensor:
        levels, size = self.subject.levels(steps), self.subject.shape[1]
        tokens = self.pipe(
            prompt_embeds=encode_prompts(list(job.prompts)), pooled_prompt_embeds=torch.zeros(len(job.prompts), 16),
            latents=F.pixel_unshuffle(normal(job, self.subject.shape), 2).flatten(2).transpose(1, 2),
            sigmas=[level.sigma for level in levels], num_inference_steps=steps, guidance_scale=job.guidance,
            height=8 * size, width=8 * size, output_type="latent").images
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (size // 2, size // 2)), 2)

    def _dit(self, job: Job, steps: int) -> Tensor:
        images = self.pipe(
            class_labels=classes_of(job.prompts).tolist(), guidance_scale=job.guidance, num_inference_steps=steps,
            generator=torch.Generator().manual_seed(job.seed), output_type="pt").images
        return 2 * images - 1


def _flux_pipeline() -> Any:
    return FluxPipeline(
        transformer=DiffusersFlux().transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0), vae=None,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None)


def _dit_pipeline(subject: Subject) -> Any:
    assert isinstance(subject, TinyDiT)
    config = subject.model.config
    transformer = DiTTransformer2DModel(
        num_attention_heads=config.heads, attention_head_dim=config.hidden // config.heads,
        in_channels=config.in_channels, out_channels=config.out_channels, num_layers=config.depth,
        sample_size=subject.shape[1], patch_size=config.patch, num_embeds_ada_norm=IMAGENET, norm_eps=1e-6).eval()
    transformer.load_state_dict(dit_weights(subject.model.state_dict()))
    transformer.pos_embed.pos_embed = subject.model.pos_embed  # the file's, which is rounded
    for block in transformer.transformer_blocks:  # the original divides by 128 where diffusers divides by 127
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, steps_offset=1)
    return DiTPipeline(transformer=transformer, vae=Pixels(), scheduler=scheduler)


class Pixels(nn.Module):
    """In a VAE's place, for a model that draws pixels."""

    device, dtype, config = torch.device("cpu"), torch.float32, SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


def dit_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A tiny DiT's weights under diffusers' names: an embedder in each block, the null class at ImageNet's place."""
    outer = {original: theirs for theirs, original in OUTER.items()}
    inner = {original: theirs for theirs, original in INNER.items()}
    embedders = {original: theirs for theirs, original in EMBEDDERS.items()}
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    result: dict[str, Tensor] = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        if module in outer:
            result[f"{outer[module]}.{kind}"] = value
        elif module in embedders:
            if module == "y_embedder.embedding_table":
                value = F.pad(value[:NULL_CLASS], (0, 0, 0, IMAGENET + 1 - NULL_CLASS))
                value[IMAGENET] = weights[name][NULL_CLASS]
            result |= {f"transformer_blocks.{i}.norm1.emb.{embedders[module]}.{kind}": value for i in range(depth)}
        elif module:
            _, index, part = module.split(".", 2)
            if part == "attn.qkv":
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    result[f"transformer_blocks.{index}.attn1.to_{letter}.{kind}"] = third
            else:
                result[f"transformer_blocks.{index}.{inner[part]}.{kind}"] = value
    return result  # less the positions, which diffusers computes
