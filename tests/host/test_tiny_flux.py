"""The committed checkpoint is a Flux: ComfyUI's own class, with its weights, computes what ours does."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny_flux import CHECKPOINTS, encode_prompts, load_tiny_flux

PATH = CHECKPOINTS / "tiny_flux.safetensors"


def host_model():
    """Through the host's own loader, or, where that forces FLUX.1's head count, its class alone."""
    import comfy.sd
    from hosts import HERE, this_host, version

    if tuple(map(int, version(this_host()).split(".")[:2])) >= (0, 29):
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
