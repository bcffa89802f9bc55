"""DiT as a ComfyUI MODEL: the host's layers, noise schedule, latent formats and memory management around DiT."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from .checkpoint import config_of, weights_of
from .model import DiT, DiTConfig

LABELS = "class_labels"  # of a conditioning: LongTensor (n,), negative for the null class
DTYPES = {
    "default": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2,
}


class HostDiT(DiT):
    """DiT with the signature that ComfyUI calls: returns the noise alone, without a learned variance."""

    def __init__(self, config: DiTConfig, **factory: Any):
        super().__init__(config, optimized_attention, **factory)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor | None = None, y: Tensor | None = None,
                transformer_options: dict[str, Any] | None = None, **kwargs: Any) -> Tensor:
        options = transformer_options or {}
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._noise, self, comfy.patcher_extension.get_all_wrappers(
                comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options))
        return executor.execute(x, timestep, context, y, options, **kwargs)

    def _noise(self, x: Tensor, timestep: Tensor, context: Tensor | None, y: Tensor, options: dict[str, Any],
               **_: Any) -> Tensor:
        return super().forward(x, timestep, y, options)[:, : self.config.in_channels]


class DiTModelConfig(comfy.supported_models_base.BASE):
    unet_extra_config = {}  # noqa: RUF012
    sampling_settings = {  # noqa: RUF012
        # ComfyUI's name for β growing linearly (its "linear" grows √β); DiT's schedule, from Ho et al. 2020.
        "beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02, "timesteps": 1000,
    }

    def __init__(self, config: DiTConfig):
        super().__init__({"config": config})
        self.latent_format = _latent_format(config.in_channels)
        # PixArt, the same network at 1152 channels and patch 2, has 0.5 in ComfyUI; it grows with the tokens' size.
        self.memory_usage_factor = 0.5 * (config.hidden / 1152) * (2 / config.patch) ** 2

    def get_model(self, state_dict: dict[str, Tensor], prefix: str = "", device: Any = None) -> DiTModel:
        return DiTModel(self, device)


def _latent_format(channels: int) -> comfy.latent_formats.LatentFormat:
    if channels == 4:
        return comfy.latent_formats.SD15()  # DiT was trained on SD's VAE, scaled by 0.18215
    if channels == 3:
        return comfy.latent_formats.ChromaRadiance()  # ComfyUI's pixel space, −1 … 1: the "pixel_space" VAE
    plain = comfy.latent_formats.LatentFormat()
    plain.latent_channels = channels
    return plain


class DiTModel(comfy.model_base.BaseModel):
    def __init__(self, model_config: DiTModelConfig, device: Any = None):
        super().__init__(model_config, comfy.model_base.ModelType.EPS, device=device, unet_model=HostDiT)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        labels = kwargs.get(LABELS)
        if labels is None:
            raise ValueError(
                "DiT is told what to draw by a class, and this conditioning has none (a text prompt means nothing to "
                "it). Connect a 'DiT Class Label' node to the sampler's positive and negative inputs.")
        classes = self.diffusion_model.config.classes
        if int(labels.max()) >= classes:
            raise ValueError(
                f"class_index must be 0 to {classes - 1} for this model, which has {classes} classes; "
                f"got {int(labels.max())}")
        out = super().extra_conds(**kwargs)
        out["y"] = comfy.conds.CONDRegular(torch.where(labels < 0, classes, labels).long())
        return out


def load_dit(path: str | Path, dtype: torch.dtype | None = None) -> Any:
    """A ModelPatcher of the DiT in a file, in `dtype` or in what the host thinks best for its weights and device."""
    path = Path(path)
    try:
        # Training checkpoints of the original hold their command line, a plain bag of values, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = comfy.utils.load_torch_file(str(path), safe_load=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than tensors, or is damaged. Loading it could run code that it brings, so it is "
            "left alone: save its weights as .safetensors where it comes from.") from error
    weights = weights_of(content, path.name)

    management = comfy.model_management
    model_config = DiTModelConfig(config_of(weights))
    device, offload_device = management.get_torch_device(), management.unet_offload_device()
    supported = model_config.supported_inference_dtypes
    if dtype is None:
        dtype = management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(weights), supported_dtypes=supported,
            weight_dtype=comfy.utils.weight_dtype(weights))
    model_config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))

    model = model_config.get_model(weights)
    # Newer hosts have a patcher that streams weights, and wants them assigned to layers that it left empty.
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = kind(model, load_device=device, offload_device=offload_device)
    streams = hasattr(patcher, "is_dynamic") and patcher.is_dynamic()
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(weights, "", **({"assign": True} if streams else {}))
    return patcher
