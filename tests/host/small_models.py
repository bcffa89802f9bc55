"""ComfyUI's own models, small and with random weights: how to build one and what to condition it on."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy_host import comfy, patcher

Extra = Callable[[torch.Generator], dict[str, Any]]


def drawn(lists: tuple[str, ...] = (), **shapes: tuple[int, ...]) -> Extra:
    """Conditioning of one random tensor per name; the names in `lists` hold a list of one tensor."""
    def extra(generator: torch.Generator) -> dict[str, Any]:
        tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: [tensor] if name in lists else tensor for name, tensor in tensors.items()}
    return extra


def fixed(**values: Any) -> Extra:
    """Conditioning that is no random tensor."""
    return lambda _: dict(values)


def all_of(*parts: Extra) -> Extra:
    def extra(generator: torch.Generator) -> dict[str, Any]:
        return {name: value for part in parts for name, value in part(generator).items()}
    return extra


NOTHING_ELSE = fixed()


@dataclass(frozen=True)
class SmallModel:
    name: str
    config: str | Callable[[dict[str, Any]], Any]  # a class in comfy.supported_models; older versions lack some
    unet: dict[str, Any]
    latent: tuple[int, ...]  # of one sample, as KSampler hands it on
    text: tuple[int, int]  # tokens, width
    extra: Extra = NOTHING_ELSE  # the rest of the conditioning
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)  # read from the checkpoint when built
    beside: tuple[int, ...] | None = None  # a second latent, sampled together with the first
    guided: bool | None = None  # whether every ComfyUI here can do it only with guidance, or only one row at a time
    single: bool = False  # one sample at a time, guided or not
    needs: tuple[str, str] | None = None  # a class and one of its arguments, by which a ComfyUI that has it is known
    gain: float = 1.0  # of its weights: those of a model that else hardly moves are larger
    parts: tuple[str, str] = ("video", "audio")  # what the two latents are


def available(small: SmallModel) -> bool:
    if not callable(small.config) and not hasattr(comfy.supported_models, small.config):
        return False
    if small.needs is None:
        return True
    path, argument = small.needs
    module, _, name = path.rpartition(".")
    return argument in inspect.signature(getattr(importlib.import_module(module), name)).parameters


def build(small: SmallModel, dtype: torch.dtype = torch.float32, computes_in: torch.dtype | None = None,
          operations: Any = None) -> Any:
    """A ModelPatcher around it. Settings that an older ComfyUI does not know are left out.

    computes_in: where that is not the dtype of the weights. operations: kinds of layers, as other packs bring them.
    """
    unet = dict(small.unet)
    kind = small.config if callable(small.config) else getattr(comfy.supported_models, small.config)
    while True:
        config = kind(unet)
        if not callable(small.config):
            config.unet_config.update(unet)  # some classes insist on the sizes of the released model
        config.custom_operations = operations
        if small.weights:
            get_model = config.get_model
            weights = {name: torch.zeros(shape) for name, shape in small.weights.items()}
            config.get_model = lambda *_, get_model=get_model, weights=weights: get_model(weights, "")
        try:
            model = with_frequencies(patcher(config, dtype, computes_in))
            if small.gain != 1:  # float8 can't be multiplied on a CPU
                for parameter in model.model.parameters():
                    parameter.mul_(small.gain)
            return model
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in unet:
                raise
            del unet[unknown[1]]


def conditioning(small: SmallModel, seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, *small.text, generator=generator), small.extra(generator)]]


def with_frequencies(model: Any) -> Any:
    """Stable Audio and MiniMax-H3 read their rotary frequencies from the checkpoint, the latter the curve of its time
    embedding too, and have anything at all in their place before."""
    for name, buffer in model.model.named_buffers():
        if name.endswith(("rotary_pos_emb.inv_freq", "rope.inv_freq")):
            buffer.copy_(10000 ** -torch.linspace(0, 1, len(buffer)))
        if name.endswith("adaln_t_table"):
            rows, width = buffer.shape
            buffer.copy_(torch.cos(torch.outer(torch.linspace(0, 1, rows), torch.linspace(0, 3, width))))
    return model


def noise(small: SmallModel, batch: int = 1, seed: int = 1) -> Any:
    """What comfy.sample.sample takes as noise: nested where there is a second latent."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(batch, *small.latent, generator=generator)
    if small.beside is None:
        return first
    return comfy.nested_tensor.NestedTensor([first, torch.randn(batch, *small.beside, generator=generator)])


def possible(small: SmallModel, cfg: float, batch: int) -> tuple[float, int]:
    """As near to this guidance and batch as every ComfyUI here can do."""
    if small.guided is None:
        return cfg, 1 if small.single else batch
    return (max(cfg, 2.0), batch) if small.guided else (1.0, 1)


def parts_of(small: SmallModel, result: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a packed result, each latent by its name; none where there is but one."""
    first = math.prod(small.latent)
    return dict(zip(small.parts, (result[..., :first], result[..., first:]), strict=True)) if small.beside else {}


def packed(result: Any) -> torch.Tensor:
    """A sampled latent, or several in one tensor."""
    return comfy.utils.pack_latents(result.unbind())[0] if result.is_nested else result


def sample(small: SmallModel, model: Any, *, steps: int = 12, cfg: float = 1.0, batch: int = 1, sampler: str = "euler",
           scheduler: str = "simple", positive: Any = None, negative: Any = None, latent: Any = None, seed: int = 1,
           sigmas: torch.Tensor | None = None, **ksampler: Any) -> torch.Tensor:
    """As KSampler does it or, with sigmas given, SamplerCustom. cfg and batch are those that are `possible`."""
    cfg, batch = possible(small, cfg, batch)
    start = noise(small, batch, seed)
    latent = start * 0.0 if latent is None else latent
    positive, negative = positive or conditioning(small, 1), negative or conditioning(small, 2)
    with torch.inference_mode():
        if sigmas is not None:
            return packed(comfy.sample.sample_custom(
                model, start, cfg, comfy.samplers.sampler_object(sampler), sigmas, positive, negative, latent,
                disable_pbar=True, seed=seed, **ksampler))
        return packed(comfy.sample.sample(
            model, start, steps, cfg, sampler, scheduler, positive, negative, latent, disable_pbar=True, seed=seed,
            **ksampler))
