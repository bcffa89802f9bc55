"""Trains the tiny Flux: `python -m benchmarks.training.train_tiny_flux` (about 35 minutes on 2 cores).

Phase 1: rectified flow on drawings, one prompt in ten left out, guidance embedding fixed at 1. Phase 2: guidance
distillation, as in FLUX.1-dev: with guidance g the network learns what phase 1's network gives under classifier-free
guidance of strength g, 1 … 4. Writes checkpoints/tiny_flux.safetensors (bfloat16), its codec, and tiny_flux.json
(how it was made and how good it is).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.models.flux_model import Flux, FluxConfig
from benchmarks.models.tiny_flux import LATENT_SHAPE, Codec, encode_prompts, from_latent
from benchmarks.sampling.subjects import TinyFlux
from benchmarks.training.training import Optimiser, initialise, prompts_of, run

BATCH = 64
GUIDANCE = (1.0, 4.0)


def random_times(count: int) -> Tensor:
    """Logit-normal, with a mild shift towards noise (Esser et al. 2024)."""
    return torch.sigmoid(torch.randn(count) + 0.6)


class Trainer:
    def __init__(self, model: Flux, latents: Tensor, contexts: Tensor, steps: int, peak_rate: float,
                 times: Callable[[int], Tensor] = random_times, half: bool = True):
        """half: in bfloat16, which takes a CPU without AMX twenty times as long."""
        self.model, self.latents, self.contexts, self.steps = model, latents, contexts, steps
        self.times, self.half = times, half
        self.optimiser = Optimiser(model, steps, peak_rate, no_muon=("mod",), half=half)
        self.run = torch.compile(model, dynamic=False)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A noisy latent, its velocity target, the time and the context."""
        rows = torch.randint(len(self.latents), (BATCH,))
        clean, noise, t = self.latents[rows], torch.randn(BATCH, *LATENT_SHAPE), self.times(BATCH)
        mix = t[:, None, None, None]
        return (1 - mix) * clean + mix * noise, noise - clean, t, self.contexts[rows]

    def velocity(self, x: Tensor, t: Tensor, context: Tensor, guidance: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            return self.run(x, t, context, guidance).float()

    def fit(self) -> list[float]:
        losses = []
        for _ in tqdm(range(self.steps), desc="rectified flow", mininterval=10):
            x, target, t, context = self.batch()
            context = context * (torch.rand(BATCH, 1, 1) >= 0.1)
            loss = (self.velocity(x, t, context, torch.ones(BATCH)) - target).square().mean()
            self.optimiser.step(loss)
            losses.append(loss.item())
        return losses

    def distil(self, teacher: Flux) -> list[float]:
        """A quarter of each batch stays plain (g = 1, prompts left out as before), the rest learns guidance."""
        guided = 3 * BATCH // 4
        ask = torch.compile(teacher, dynamic=False)
        losses = []
        for _ in tqdm(range(self.steps), desc="guidance distillation", mininterval=10):
            x, target, t, context = self.batch()
            guidance = torch.ones(BATCH)
            guidance[:guided].uniform_(*GUIDANCE)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                both = torch.cat((context[:guided], torch.zeros_like(context[:guided])))
                twice = ask(torch.cat((x[:guided],) * 2), torch.cat((t[:guided],) * 2), both,
                            torch.ones(2 * guided)).float()
            cond, uncond = twice.chunk(2)
            target[:guided] = uncond + guidance[:guided, None, None, None] * (cond - uncond)
            context[guided:] *= torch.rand(BATCH - guided, 1, 1) >= 0.1
            loss = (self.velocity(x, t, context, guidance) - target).square().mean()
            self.optimiser.step(loss)
            losses.append(loss.item())
        return losses


def train(options: argparse.Namespace, pixels: Tensor, words: Tensor) -> dict[str, Any]:
    """Both phases; writes the checkpoint and the codec, and says how it went."""
    codec = Codec.fit(pixels[:4000])
    latents = from_latent(codec.encode(pixels))
    contexts = encode_prompts(prompts_of(words))
    model = Flux(FluxConfig())
    initialise(model, zeros=("mod.lin.weight", "modulation.lin.weight", "final_layer"))
    first = Trainer(model, latents, contexts, options.steps, peak_rate=1.5e-3)
    flow_losses = first.fit()
    student = copy.deepcopy(first.optimiser.average).train().requires_grad_(True)
    second = Trainer(student, latents, contexts, options.distil_steps, peak_rate=3e-4)
    distil_losses = second.distil(first.optimiser.average)

    average = second.optimiser.average
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in average.state_dict().items()}
    save_file(weights, options.out / "tiny_flux.safetensors", metadata={"format": "pt"})
    save_file({"mean": codec.mean, "basis": codec.basis, "scale": codec.scale},
              options.out / "tiny_flux_codec.safetensors")
    return {
        "command": f"python -m benchmarks.training.train_tiny_flux --steps {options.steps} "
                   f"--distil-steps {options.distil_steps} --drawings {options.drawings}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "flow_loss": float(np.mean(flow_losses[-200:])),
        "distillation_loss": float(np.mean(distil_losses[-200:])),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=6000, help="steps of phase 1")
    arguments.add_argument("--distil-steps", type=int, default=1000, help="steps of phase 2")
    run(arguments, "tiny_flux", TinyFlux, train)


if __name__ == "__main__":
    main()
