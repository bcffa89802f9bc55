"""ComfyUI and diffusers forecast the same: the small models on the same noise, with the same settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import in_diffusers as other_host
import pytest
import torch
from comfy_host import HOST, accelerated, comfy, dit_host, femo_core
from in_diffusers import JOB, SETTINGS, SITES, STEPS, SUBJECTS
from test_dit import sample as sample_dit

from benchmarks.engines.hosted import load_tiny_flux as load_tiny_flux_in
from benchmarks.models.tiny_dit import CHECKPOINT, classes_of
from benchmarks.models.tiny_flux import encode_prompts, from_latent
from benchmarks.sampling.subjects import normal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def diffusers_results(tmp_path_factory):
    """Made in a process of its own: diffusers cannot be imported beside what stands in for torchvision here."""
    path = tmp_path_factory.mktemp("diffusers") / "results.pt"
    subprocess.run([sys.executable, other_host.__file__, str(path)], check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    return torch.load(path)


def sample_in_comfyui(subject, setting, site):
    predictor = getattr(femo_core, setting.predictor)(**setting.arguments)
    noise = normal(JOB, subject.shape)
    if subject.name == "tiny DiT":
        model = dit_host.load_dit(CHECKPOINT, torch.float32)
        return subject.pixels(sample_dit(
            accelerated(model, predictor, setting.interval, subject.warmup, 1, site), noise=noise, steps=STEPS,
            cfg=JOB.guidance, labels=tuple(classes_of(JOB.prompts).tolist())))
    prompt = [[encode_prompts(list(JOB.prompts)), {"pooled_output": torch.zeros(2, 16), "guidance": JOB.guidance}]]
    model = accelerated(load_tiny_flux_in(HOST), predictor, setting.interval, subject.warmup, 1, site)
    with torch.inference_mode():
        return from_latent(comfy.sample.sample(
            model, noise, STEPS, 1.0, "euler", "simple", prompt, prompt, torch.zeros_like(noise), disable_pbar=True,
            seed=0))


def relative(result, reference):
    return ((result - reference).norm() / reference.norm()).item()


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda kind: kind.name)
def in_full(request, diffusers_results):
    """The subject, and its full run in both hosts."""
    subject, setting, site = request.param(), SETTINGS[0], SITES[0]
    return subject, (sample_in_comfyui(subject, setting, site), diffusers_results[subject.name, setting.name, site])


@pytest.mark.parametrize("site", SITES)
def test_the_hosts_agree(in_full, site, diffusers_results):
    """The full runs of DiT are 1e-4 apart as it is: ComfyUI's latent has a variance of up to 10⁴, diffusers' of 1, and
    float32 rounds them otherwise."""
    subject, full = in_full
    assert relative(*full) < 2e-4
    for setting in SETTINGS[1:]:
        results = sample_in_comfyui(subject, setting, site), diffusers_results[subject.name, setting.name, site]
        of_comfyui, of_diffusers = map(relative, results, full)
        assert of_comfyui == pytest.approx(of_diffusers, abs=setting.tolerance), setting
        assert of_comfyui > 5 * setting.tolerance  # there is something to agree on
        assert relative(*results) < 3 * setting.tolerance
