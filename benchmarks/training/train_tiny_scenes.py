"""Trains the scenes' model: `python -m benchmarks.training.train_tiny_scenes` (about 30 minutes on 2 cores).

Rectified flow on scenes (models/scenes.py), the tiny Flux's architecture without guidance, one prompt in ten left out.
Noise levels are drawn more widely than the tiny Flux's, as it is sampled at many timestep shifts. Writes
checkpoints/tiny_scenes.safetensors (bfloat16), its codec, and tiny_scenes.json: how it was made, and the loss on scenes
that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.models.flux_model import Flux, FluxConfig
from benchmarks.models.scenes import draw_scenes
from benchmarks.models.tiny_flux import CHECKPOINTS, LATENT_SHAPE, Codec, encode_prompts, from_latent, load_tiny_flux
from benchmarks.training.train_tiny_flux import Trainer
from benchmarks.training.training import initialise, pixels_of, prompts_of


def random_times(count: int) -> Tensor:
    """Logit-normal, wide: both ends are sampled much at small and at large shifts."""
    return torch.sigmoid(1.4 * torch.randn(count))


def held_out_loss(model: Flux, codec: Codec) -> float:
    """Mean square error of the velocity on 1,000 scenes that it has not seen."""
    images, words = draw_scenes(1000, seed=777)
    clean, generator = from_latent(codec.encode(pixels_of(images))), torch.Generator().manual_seed(0)
    noise = torch.randn(1000, *LATENT_SHAPE, generator=generator)
    times, contexts = torch.rand(1000, generator=generator), encode_prompts(prompts_of(torch.from_numpy(words)))
    mix = times[:, None, None, None]
    with torch.inference_mode():
        found = torch.cat([model(x, t, context, torch.ones(len(x))) for x, t, context in zip(
            ((1 - mix) * clean + mix * noise).split(100), times.split(100), contexts.split(100), strict=True)])
    return (found - (noise - clean)).square().mean().item()


def train(options: argparse.Namespace) -> dict[str, Any]:
    images, words = draw_scenes(options.scenes, seed=0)
    pixels = pixels_of(images)
    codec = Codec.fit(pixels[:4000])
    model = Flux(FluxConfig(single_blocks=4, guidance=False))
    initialise(model, zeros=("mod.lin.weight", "modulation.lin.weight", "final_layer"))
    trainer = Trainer(model, from_latent(codec.encode(pixels)), encode_prompts(prompts_of(torch.from_numpy(words))),
                      options.steps, peak_rate=1.5e-3, times=random_times, half=False)
    losses = trainer.fit()
    weights = {name: value.to(torch.bfloat16).contiguous()
               for name, value in trainer.optimiser.average.state_dict().items()}
    save_file(weights, options.out / "tiny_scenes.safetensors", metadata={"format": "pt"})
    save_file({"mean": codec.mean, "basis": codec.basis, "scale": codec.scale},
              options.out / "tiny_scenes_codec.safetensors")
    return {
        "command": f"python -m benchmarks.training.train_tiny_scenes --steps {options.steps} --scenes {options.scenes}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "flow_loss": float(np.mean(losses[-200:])),
        "held_out_loss": held_out_loss(load_tiny_flux(options.out / "tiny_scenes.safetensors"), codec),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=2400)
    arguments.add_argument("--scenes", type=int, default=16000)
    arguments.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder")
    options = arguments.parse_args()
    torch.manual_seed(0)
    started = time.time()
    options.out.mkdir(parents=True, exist_ok=True)
    report = train(options)
    report["minutes"] = round((time.time() - started) / 60, 1)
    (options.out / "tiny_scenes.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
