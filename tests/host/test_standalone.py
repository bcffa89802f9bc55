"""ComfyUI forecasts what the standalone host does: the small models on the same noise, with the same settings.

So do diffusers' pipelines (test_pipelines.py), and by that the hosts agree.
"""

from __future__ import annotations

import pytest
import torch
from comfy_host import HOST, accelerated, comfy, dit_host, femo_core
from hosts_agree import FORECAST, IN_FULL, JOB, STEPS, SUBJECTS, assert_agree
from test_dit import sample as sample_dit

import femo_core as core
from benchmarks.engines.hosted import load_tiny_flux
from benchmarks.models.tiny_dit import CHECKPOINT, NULL_CLASS, classes_of
from benchmarks.models.tiny_flux import encode_prompts, from_latent
from benchmarks.sampling.forecasting import sample as sample_alone
from benchmarks.sampling.subjects import TinyDiT, normal


def in_comfyui(subject, setting):
    noise = normal(JOB, subject.shape)
    request = setting.predictor_in(femo_core), setting.interval, subject.warmup, 1, setting.site
    if isinstance(subject, TinyDiT):
        model = accelerated(dit_host.load_dit(CHECKPOINT, torch.float32), *request)
        assert model.model.diffusion_model.config.classes == NULL_CLASS
        return sample_dit(model, noise=noise, steps=STEPS, cfg=JOB.guidance,
                          labels=tuple(classes_of(JOB.prompts).tolist()))
    prompt = [[encode_prompts(list(JOB.prompts)), {"pooled_output": torch.zeros(2, 16), "guidance": JOB.guidance}]]
    with torch.inference_mode():
        return from_latent(comfy.sample.sample(
            accelerated(load_tiny_flux(HOST), *request), noise, STEPS, 1.0, "euler", "simple", prompt, prompt,
            torch.zeros_like(noise), disable_pbar=True, seed=0))


def alone(subject, setting):
    schedule = core.Schedule(setting.interval, subject.warmup, 1)
    return sample_alone(subject, JOB, STEPS, setting.predictor_in(core), schedule, site=setting.site)[0]


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda kind: kind.name)
def in_full(request):
    """The subject and its full run, standalone and in ComfyUI."""
    subject = request.param()
    return subject, alone(subject, IN_FULL), in_comfyui(subject, IN_FULL)


@pytest.mark.parametrize("setting", FORECAST, ids=str)
def test_comfyui_forecasts_what_the_standalone_host_does(in_full, setting):
    subject, full, full_there = in_full
    forecast, forecast_there = alone(subject, setting), in_comfyui(subject, setting)
    assert_agree(setting, "ComfyUI", (full, forecast), (full_there, forecast_there))
    if not setting.adapts:
        torch.testing.assert_close(forecast_there, forecast, rtol=5e-3, atol=5e-3)
