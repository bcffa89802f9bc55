"""The committed checkpoint is a Flux: ComfyUI's own class, with its weights, computes what ours does."""

from __future__ import annotations

import pytest
import torch
from comfy_host import HOST

from benchmarks.engines.hosted import load_tiny_flux as load_tiny_flux_in
from benchmarks.models.tiny_flux import encode_prompts, load_tiny_flux


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
