"""The committed checkpoint is a Flux: ComfyUI's own class, with its weights, computes what ours does."""

from __future__ import annotations

import pytest
import torch
from comfy_host import HOST, accelerated, comfy, femo_core

import femo_core as core
from benchmarks.engines.hosted import load_tiny_flux as load_tiny_flux_in
from benchmarks.models.tiny_flux import LATENT_SHAPE, encode_prompts, load_tiny_flux, to_latent
from benchmarks.sampling.forecasting import sample as sample_alone
from benchmarks.sampling.subjects import Job, TinyFlux, normal


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_comfyuis_flux_computes_the_same(guidance):
    network = load_tiny_flux_in(HOST).model.diffusion_model.float()
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 16, 16, 16, generator=generator), torch.tensor([0.9, 0.3])
    context = encode_prompts(["red house day", "blue fish night"])
    strength = torch.full((2,), guidance)
    with torch.inference_mode():
        ours = load_tiny_flux()(x, t, context, strength)
        theirs = network(x, t, context=context, y=torch.zeros(2, 16), guidance=strength, transformer_options={})
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["TaylorSeer", "FeMo"])
@pytest.mark.parametrize("interval", [1, 4, 6])
def test_comfyui_forecasts_what_the_standalone_host_does(name, interval):
    """Same noise, weights, steps and settings: the latents agree, so steps, streams and sites are where they belong."""
    job = Job(("red house day",), seed=5)
    model, schedule = load_tiny_flux_in(HOST), {"interval": interval, "warmup_steps": 3, "cooldown_steps": 1}
    alone, _ = sample_alone(TinyFlux(), job, 20, getattr(core, name)(1), core.Schedule(**schedule))
    prompt = [[encode_prompts(list(job.prompts)), {"pooled_output": torch.zeros(1, 16), "guidance": job.guidance}]]
    patched = accelerated(model, getattr(femo_core, name)(1), interval=interval, cooldown=1)
    noise = normal(job, LATENT_SHAPE)
    with torch.inference_mode():
        hosted = comfy.sample.sample(
            patched, noise, 20, 1.0, "euler", "simple", prompt, prompt, torch.zeros_like(noise), disable_pbar=True,
            seed=5)
    torch.testing.assert_close(hosted, to_latent(alone), rtol=5e-3, atol=5e-3)
