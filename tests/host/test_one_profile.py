"""What one host has learned of a model serves in the other: the tiny Flux on the same noise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import auto_in_diffusers as other_host
import pytest
import torch
from comfy_host import HOST, PACK, comfy, femo_core
from hosts_agree import JOB
from test_auto import auto, folder, only  # noqa: F401  (the folder of profiles is set for each test)

from benchmarks.engines.hosted import load_tiny_flux
from benchmarks.models.tiny_flux import encode_prompts
from benchmarks.sampling.subjects import TinyFlux, normal

ROOT = Path(__file__).parents[2]
STEPS = 20
identity = sys.modules[f"{PACK}.nodes.learned.identity"]


def run_in_comfyui():
    prompt = [[encode_prompts(list(JOB.prompts)), {"pooled_output": torch.zeros(2, 16), "guidance": JOB.guidance}]]
    model = auto(load_tiny_flux(HOST), quality="by speed-up", speedup=2.0)
    noise = normal(JOB, TinyFlux().shape)
    with torch.inference_mode():
        comfy.sample.sample(model, noise, STEPS, 1.0, "euler", "simple", prompt, prompt, torch.zeros_like(noise),
                            disable_pbar=True, seed=0)


def test_a_profile_serves_in_both(folder, reports, tmp_path):  # noqa: F811
    run_in_comfyui()
    run_in_comfyui()
    by_its_own = reports[-1]
    (path,) = folder.glob("*.json")
    of_comfyui, own = only(folder), tmp_path / "own.json"
    printed = subprocess.run(
        [sys.executable, other_host.__file__, str(own), str(path)], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}).stdout.split()
    assert printed == ["yes", str(by_its_own.network_runs)]
    assert only(folder) == of_comfyui  # nothing to add
    of_diffusers = femo_core.Profile.from_json(own.read_bytes())
    (one,), (other) = of_comfyui.recordings, of_diffusers.recordings[0]
    assert other.sigmas == pytest.approx(one.sigmas, abs=1e-3)
    assert other.size == pytest.approx(one.size, rel=1e-2)
    assert float((one.gram - other.gram).norm() / one.gram.norm()) < 1e-2
    path.write_bytes(own.read_bytes())
    run_in_comfyui()
    assert (reports[-1].settings["learned"], reports[-1].network_runs) == ("yes", by_its_own.network_runs)
