"""The committed checkpoint is a Flux: ComfyUI's own class, with its weights, computes what ours does."""

from __future__ import annotations

import sys

import pytest
import torch
from comfy_host import HOST, accelerated, comfy, femo_core
from comfy_server import loads_small_fluxes
from forecasting import Job
from forecasting import sample as sample_alone
from hosts import HERE, version
from tiny_flux import CHECKPOINTS, encode_prompts, load_tiny_flux

import femo_core as core

PATH = CHECKPOINTS / "tiny_flux.safetensors"


def host_model():
    """Through the host's own loader, or, where that forces FLUX.1's head count, its class alone."""
    import comfy.sd

    if loads_small_fluxes(version(HOST)):
        return comfy.sd.load_diffusion_model(str(PATH), model_options={"dtype": torch.float32})
    sys.path.append(str(HERE))
    import folder_paths
    from femo_test_nodes import TinyFluxLoader

    folder_paths.add_model_folder_path("diffusion_models", str(PATH.parent))
    return TinyFluxLoader().load(PATH.name, "default")[0]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_comfyuis_flux_computes_the_same(guidance):
    network = host_model().model.diffusion_model.float()
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
    model, schedule = host_model(), {"interval": interval, "warmup_steps": 3, "cooldown_steps": 1}
    alone, _ = sample_alone(load_tiny_flux(), job, 50, getattr(core, name)(1), core.Schedule(**schedule))
    prompt = [[encode_prompts(list(job.prompts)), {"pooled_output": torch.zeros(1, 16), "guidance": job.guidance}]]
    patched = accelerated(model, getattr(femo_core, name)(1), interval=interval, cooldown=1)
    with torch.inference_mode():
        hosted = comfy.sample.sample(
            patched, job.noise, 50, 1.0, "euler", "simple", prompt, prompt, torch.zeros_like(job.noise),
            disable_pbar=True, seed=5)
    torch.testing.assert_close(hosted, alone, rtol=5e-3, atol=5e-3)
