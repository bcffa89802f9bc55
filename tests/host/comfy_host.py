"""A real ComfyUI in this process: small models with random weights, and sampling as its KSampler does it."""

from __future__ import annotations

import dataclasses
import gc
import sys
import warnings
from typing import Any

import pytest
import torch
from hosts import MISSING, STUBS, load_pack, this_host

HOST = this_host()
if HOST is None:
    pytest.skip(MISSING, allow_module_level=True)

sys.path[:0] = [str(STUBS), str(HOST)]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from comfy.cli_args import args

    args.cpu = True
    import comfy.controlnet
    import comfy.ldm.flux.model
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sample
    import comfy.samplers
    import comfy.supported_models


PACK = load_pack("a_folder_of_any_name").__name__
attach_module: Any = sys.modules[f"{PACK}.nodes.attach"]
femo_core: Any = sys.modules[f"{PACK}.femo_core"]
sites: Any = sys.modules[f"{PACK}.nodes.sites"]
families: Any = sys.modules[f"{PACK}.nodes.families"]
femo_node: Any = sys.modules[f"{PACK}.nodes.femo"]
taylorseer_node: Any = sys.modules[f"{PACK}.nodes.taylorseer"]

FLUX = {
    "image_model": "flux", "guidance_embed": True, "in_channels": 16, "out_channels": 16, "hidden_size": 256,
    "context_in_dim": 64, "vec_in_dim": 16, "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "mlp_ratio": 4.0,
    "theta": 10000, "patch_size": 2, "qkv_bias": True, "axes_dim": [16, 56, 56], "txt_ids_dims": [],
}
VARIANTS = ("dev", "schnell", "kontext", "fill")


def build_flux(variant: str = "dev", dtype: torch.dtype = torch.float32) -> Any:
    """A ModelPatcher around ComfyUI's own Flux, small, with random weights."""
    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)} | {"image_model"}
    config = {key: value for key, value in FLUX.items() if key in known}
    kind = comfy.supported_models.Flux
    if variant == "schnell":
        config["guidance_embed"], kind = False, comfy.supported_models.FluxSchnell
    elif variant == "fill":
        config["in_channels"], kind = 96, comfy.supported_models.FluxInpaint
    return patcher(kind(config), dtype)


def patcher(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    config.set_inference_dtype(dtype, None)
    torch.manual_seed(0)
    model = config.get_model({}, "")
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def conditioning(seed: int, tokens: int = 4, variant: str = "dev", size: tuple[int, int] = (16, 16)) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"pooled_output": torch.zeros(1, 16), "guidance": 3.0}
    if variant == "kontext":
        options["reference_latents"] = [torch.randn(1, 16, *size, generator=generator)]
    if variant == "fill":
        options["concat_latent_image"] = torch.randn(1, 16, *size, generator=generator)
        options["concat_mask"] = torch.ones(1, 1, 8 * size[0], 8 * size[1])
    return [[torch.randn(1, tokens, 64, generator=generator), options]]


def sample(model: Any, *, steps: int = 12, sampler: str = "euler", cfg: float = 1.0, size: tuple[int, int] = (16, 16),
           batch: int = 1, variant: str = "dev", positive: Any = None, negative: Any = None, seed: int = 1,
           denoise: float = 1.0, sigmas: torch.Tensor | None = None, channels: int = 16,
           scheduler: str = "simple", **ksampler: Any) -> torch.Tensor:
    noise = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))
    latent = torch.zeros_like(noise)
    positive = positive or conditioning(1, variant=variant, size=size)
    negative = negative or conditioning(2, variant=variant, size=size)
    with torch.inference_mode():
        if sigmas is not None:
            return comfy.sample.sample_custom(
                model, noise, cfg, comfy.samplers.sampler_object(sampler), sigmas, positive, negative, latent,
                disable_pbar=True, seed=seed)
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, denoise=denoise,
            disable_pbar=True, seed=seed, **ksampler)


def accelerated(model: Any, predictor: Any = None, interval: int = 3, warmup: int = 3, cooldown: int = 0,
                site: str = "hidden") -> Any:
    return attach_module.attach(model, attach_module.CacheConfig(
        predictor or femo_core.TaylorSeer(1), femo_core.Schedule(interval, warmup, cooldown), site))


def copies(into: dict[str, torch.Tensor]) -> Any:
    """Takes what a site records."""
    return lambda name, feature: into.update({name: feature.clone()})


class RunCounter:
    """Counts how often the network's first block really runs or, where none is known, the network."""

    def __init__(self, model: Any):
        network = model.model.diffusion_model
        self.kind, self.count = type(network), 0
        self.part = next(iter(first_parts(network).values()), None)
        self.forward = self.kind.forward

    def __enter__(self) -> RunCounter:
        if self.part:
            self.handle = self.part.register_forward_hook(self._add)
        else:
            self.kind.forward = lambda *args, **kwargs: (self._add(), self.forward(*args, **kwargs))[1]
        return self

    def _add(self, *_: Any) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        if self.part:
            self.handle.remove()
        else:
            self.kind.forward = self.forward


class Breaks:
    """Raises at the `at`-th run of a module."""

    def __init__(self, module: torch.nn.Module, error: Exception, at: int):
        self.module, self.error, self.left = module, error, at

    def __enter__(self) -> None:
        self.handle = self.module.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def first_parts(network: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return sites.base.first_parts(network, families.find_family(network))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def tensor_bytes() -> int:
    gc.collect()
    return sum(o.nbytes for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter))


def leftovers(model: Any) -> list[str]:
    """Hooks and replaced forwards on the shared model: there must be none."""
    return [
        f"{name}: {kind}"
        for name, module in model.model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "forward")
        if module.__dict__.get(kind)
    ]
