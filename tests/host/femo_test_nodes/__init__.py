"""Test-only ComfyUI nodes: prompts for the tiny Flux, a loader where the host's own forces FLUX.1's head count, and a
user who interrupts.

The tests and `make demo-comfyui` link this folder into a custom_nodes folder of their own.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]


class TinyFluxPrompt:
    """Words like "red house day" to conditioning; nothing is the empty prompt."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "femo tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"text": ("STRING", {"default": "red house day"})}}

    def encode(self, text):
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        from benchmarks.models.tiny_flux import encode_prompts

        return ([[encode_prompts([text]), {"pooled_output": torch.zeros(1, 16)}]],)


class TinyFluxLoader:
    """UNETLoader for hosts that take 24 heads for granted (before 0.29): reads the count off the weights."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = "femo tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        import folder_paths

        return {"required": {
            "unet_name": (folder_paths.get_filename_list("diffusion_models"),), "weight_dtype": (["default"],)}}

    def load(self, unet_name, weight_dtype):
        import comfy.ldm.flux.model
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models
        import comfy.utils
        import folder_paths

        weights = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("diffusion_models", unet_name))
        hidden = weights["img_in.weight"].shape[0]
        config = {
            "image_model": "flux", "guidance_embed": True, "in_channels": 16, "out_channels": 16, "patch_size": 2,
            "hidden_size": hidden, "num_heads": hidden // 128, "axes_dim": [16, 56, 56], "theta": 10000,
            "context_in_dim": weights["txt_in.weight"].shape[1], "mlp_ratio": 4.0, "qkv_bias": True,
            "vec_in_dim": weights["vector_in.in_layer.weight"].shape[1], "txt_ids_dims": [],
            "depth": 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("double_blocks")),
            "depth_single_blocks": 1 + max(int(k.split(".")[1]) for k in weights if k.startswith("single_blocks")),
        }
        known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)} | {"image_model"}
        kind = comfy.supported_models.Flux({key: value for key, value in config.items() if key in known})
        kind.set_inference_dtype(torch.float32, None)
        model = kind.get_model({}, "")
        model.load_model_weights(weights, "")
        return (comfy.model_patcher.ModelPatcher(
            model, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()),)


class TinyFluxDecode:
    """The tiny Flux's own codec, in the place of a VAE."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "femo tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"samples": ("LATENT",)}}

    def decode(self, samples):
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        from benchmarks.models.tiny_flux import Codec

        return ((Codec.load().decode(samples["samples"].cpu()).movedim(1, -1) + 1) / 2,)


class InterruptsAt:
    """As if the user pressed the button while the model is evaluated for the n-th time."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "femo tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "evaluation": ("INT", {"default": 1, "min": 1})}}

    def patch(self, model, evaluation):
        import comfy.model_management

        evaluations = []

        def interrupts(args):
            evaluations.append(1)
            if len(evaluations) == evaluation:
                comfy.model_management.interrupt_current_processing()
            return args["denoised"]

        model = model.clone()
        model.set_model_sampler_post_cfg_function(interrupts)
        return (model,)


NODE_CLASS_MAPPINGS = {
    "InterruptsAt": InterruptsAt, "TinyFluxPrompt": TinyFluxPrompt, "TinyFluxLoader": TinyFluxLoader,
    "TinyFluxDecode": TinyFluxDecode}
