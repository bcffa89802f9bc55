"""ComfyUI's image models, small: what small_models.py builds."""

from __future__ import annotations

from typing import Any

import torch
from comfy_host import dit_host, dit_model
from small_models import Extra, SmallModel, all_of, drawn, fixed

TEXT = (4, 64)
POOLED = drawn(pooled_output=(1, 32))
NOT_POOLED = fixed(pooled_output=None)
ALL_TOKENS = fixed(attention_mask=torch.ones(1, 4, dtype=torch.long))
TWO_HEADS = [16, 24, 24]  # rotary axes of a head 64 wide


def reference(*shape: int) -> Extra:
    """An image to edit or to follow, encoded."""
    return drawn(("reference_latents",), reference_latents=(1, *shape))


FLUX_SHAPE = {
    "hidden_size": 128, "num_heads": 2, "axes_dim": TWO_HEADS, "depth": 2, "depth_single_blocks": 3, "mlp_ratio": 4.0,
    "context_in_dim": 64, "vec_in_dim": None, "qkv_bias": True, "theta": 10000,
}
FLUX = {
    **FLUX_SHAPE, "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 32,
    "guidance_embed": True, "txt_ids_dims": [],
}
FLUX2 = {
    **FLUX_SHAPE, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1,
    "hidden_size": 64, "axes_dim": [8, 8, 8, 8], "mlp_ratio": 3.0, "theta": 2000, "qkv_bias": False, "ops_bias": False,
    "guidance_embed": True, "global_modulation": True, "mlp_silu_act": True, "txt_ids_dims": [3],
    "default_ref_method": "index", "ref_index_scale": 10.0, "yak_mlp": False, "txt_norm": False,
}
LONGCAT = {
    **FLUX_SHAPE, "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "guidance_embed": False, "txt_ids_dims": [1, 2],
}
CHROMA = {
    **FLUX_SHAPE, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "patch_size": 2, "txt_ids_dims": [],
    "in_dim": 64, "out_dim": 128, "hidden_dim": 64, "n_layers": 2,
}
RADIANCE = {
    **CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 8,
    "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 2, "nerf_max_freqs": 4, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32, "use_x0": False,
    "use_sequential_txt_ids": False,
}
HUNYUAN = {
    **FLUX_SHAPE, "image_model": "hunyuan_video", "in_channels": 64, "out_channels": 64, "patch_size": [1, 1],
    "axes_dim": [32, 32], "theta": 256, "guidance_embed": False, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}
SD3 = {
    "in_channels": 16, "patch_size": 2, "input_size": None, "depth": 2, "num_blocks": 3, "adm_in_channels": 32,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}},
    "qk_norm": "rms", "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [],
}
AURA = {
    "in_channels": 4, "out_channels": 4, "dim": 128, "n_heads": 2, "n_layers": 5, "n_double_layers": 2,
    "global_conddim": 128, "cond_seq_dim": 64, "max_seq": 64,
}
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 3, "attention_head_dim": 64,
    "num_attention_heads": 2, "joint_attention_dim": 64, "axes_dims_rope": TWO_HEADS,
}
QWEN21 = {
    "image_model": "qwen_image21", "in_channels": 64, "out_channels": 64, "num_layers": 3, "attention_head_dim": 64,
    "num_attention_heads": 2, "context_in_dim": 64, "axes_dims_rope": TWO_HEADS,
}
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 128, "n_heads": 2, "n_kv_heads": 1,
    "n_layers": 3, "n_refiner_layers": 2, "multiple_of": 64, "ffn_dim_multiplier": 1.0, "cap_feat_dim": 64,
    "qk_norm": True, "axes_dims": TWO_HEADS, "axes_lens": [64, 64, 64], "rope_theta": 10000.0,
}
Z_IMAGE = {
    **LUMINA, "dim": 256, "n_heads": 4, "n_kv_heads": 4, "rope_theta": 256.0, "z_image_modulation": True,
    "time_scale": 1000.0, "pad_tokens_multiple": 32,
}
HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
    "num_single_layers": 2, "attention_head_dim": 64, "num_attention_heads": 2, "caption_channels": [64, 64],
    "text_emb_dim": 32, "num_routed_experts": 4, "num_activated_experts": 2, "axes_dims_rope": [32, 16, 16],
    "max_resolution": [32, 32], "llama_layers": [0, 1, 1, 1],
}
COSMOS = {
    "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 128, "num_blocks": 3,
    "num_heads": 2, "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
    "use_adaln_lora": True, "adaln_lora_dim": 32, "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0,
    "rope_enable_fps_modulation": False,
}
PIXART = {
    "image_model": "pixart_alpha", "patch_size": 2, "in_channels": 4, "hidden_size": 96, "num_heads": 2, "depth": 3,
    "caption_channels": 64, "model_max_length": 4, "pe_interpolation": 1, "micro_condition": True,
}
HYDIT = {
    "image_model": "hydit", "depth": 4, "hidden_size": 128, "num_heads": 2, "text_states_dim": 64,
    "text_states_dim_t5": 64, "text_len": 4, "text_len_t5": 4,
}
OMNIGEN = {
    "image_model": "omnigen2", "in_channels": 16, "hidden_size": 128, "num_layers": 3, "num_refiner_layers": 2,
    "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 64, "axes_dim_rope": TWO_HEADS,
    "axes_lens": [64, 64, 64], "text_feat_dim": 64, "timestep_scale": 1000.0,
}
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 128, "ff_dim": 256, "time_dim": 64, "visual_embed_dim": 64,
    "in_text_dim": 64, "in_text_dim2": 32, "axes_dims": TWO_HEADS, "rope_scale_factor": (1.0, 1.0, 1.0),
    "num_text_blocks": 2, "num_visual_blocks": 3,
}
SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
    "num_res_blocks": [2, 2], "transformer_depth": [1, 1, 1, 1], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1], "context_dim": 64, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "legacy": False, "adm_in_channels": None,
}
SDXL = {
    **SD15, "transformer_depth": [0, 0, 2, 2], "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2], "use_linear_in_transformer": True, "num_classes": "sequential",
    "adm_in_channels": 32 + 6 * 256, "num_head_channels": 32,
}
LENS = {
    "image_model": "lens", "in_channels": 128, "out_channels": 32, "num_layers": 3, "attention_head_dim": 64,
    "num_attention_heads": 2, "enc_hidden_dim": 32, "selected_layer_index": (0, 1), "axes_dims_rope": TWO_HEADS,
}
PIXELDIT = {
    "image_model": "pixeldit_t2i", "hidden_size": 128, "num_groups": 2, "pixel_hidden_size": 16,
    "pixel_attn_hidden_size": 64, "pixel_num_groups": 2, "patch_depth": 3, "pixel_depth": 2, "patch_size": 8,
    "txt_embed_dim": 64, "txt_max_length": 8,
}
ERNIE = {
    "image_model": "ernie", "hidden_size": 128, "num_attention_heads": 2, "num_layers": 3, "ffn_hidden_size": 256,
    "in_channels": 128, "out_channels": 128, "text_in_dim": 64, "rope_axes_dim": TWO_HEADS,
}
IDEOGRAM = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 3, "num_attention_heads": 2,
    "attention_head_dim": 64, "intermediate_size": 256, "adaln_dim": 64, "llm_features_dim": 64,
    "mrope_section": [12, 10, 10],
}
KREA = {
    "image_model": "krea2", "features": 128, "tdim": 64, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 3,
    "patch": 2, "channels": 16, "txtdim": 32, "txtlayers": 2, "txtheads": 1, "txtkvheads": 1,
}
JOY = {
    "image_model": "joyimage", "patch_size": [1, 2, 2], "in_channels": 16, "hidden_size": 128,
    "num_attention_heads": 2, "num_layers": 3, "text_dim": 64, "rope_dim_list": TWO_HEADS,
}
MAGE = {
    "image_model": "mage_flow", "in_channels": 128, "out_channels": 128, "num_layers": 3, "attention_head_dim": 64,
    "num_attention_heads": 2, "joint_attention_dim": 64, "axes_dims_rope": TWO_HEADS,
}
BOOGU = {
    "image_model": "boogu", "in_channels": 16, "hidden_size": 128, "num_layers": 3, "num_double_stream_layers": 2,
    "num_refiner_layers": 2, "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 64, "axes_dim_rope": TWO_HEADS,
    "axes_lens": [64, 64, 64], "instruction_feat_dim": 64,
}
Z_IMAGE_PIXELS = {
    **Z_IMAGE, "image_model": "zimage_pixel", "patch_size": 8, "in_channels": 3, "decoder_hidden_size": 64,
    "decoder_num_res_blocks": 2, "decoder_max_freqs": 4,
}
PID = {
    **PIXELDIT, "image_model": "pid", "lq_latent_channels": 16, "lq_hidden_dim": 32, "lq_num_res_blocks": 1,
    "lq_interval": 2, "sr_scale": 1, "latent_spatial_down_factor": 8,
}
HIDREAM_O1 = {
    "image_model": "hidream_o1",
    "text_config_overrides": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "rope_dims": [6, 5, 5],
    },
    "vision_config_overrides": {
        "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "depth": 1, "num_position_embeddings": 16,
    },
}


DIT = {
    "hidden": 128, "depth": 3, "heads": 2, "patch": 2, "in_channels": 4, "out_channels": 8, "classes": 1000, "grid": 8,
}


def dit(unet: dict[str, Any]) -> Any:
    """The pack's own."""
    return dit_host.DiTModelConfig(dit_model.DiTConfig(**{name: unet[name] for name in DIT}))


def class_label(generator: torch.Generator) -> dict[str, Any]:
    return {"class_labels": torch.randint(1000, (1,), generator=generator)}


def prompt_and_timestep_token(generator: torch.Generator) -> dict[str, Any]:
    """HiDream-O1 reads token ids; the last stands for the timestep."""
    prompt = torch.randint(1000, (1, 5), generator=generator)
    return {"text_input_ids": torch.cat([prompt, torch.tensor([[151673]])], dim=1)}


HYDIT_TEXT = all_of(
    ALL_TOKENS, drawn(conditioning_mt5xl=(1, 4, 64)), fixed(attention_mask_mt5xl=torch.ones(1, 4, dtype=torch.long)),
)

IMAGES: tuple[SmallModel, ...] = (
    SmallModel("FLUX.1 dev", "Flux", FLUX, (16, 16, 16), TEXT, POOLED),
    SmallModel("FLUX.1 schnell", "FluxSchnell", {**FLUX, "guidance_embed": False}, (16, 16, 16), TEXT, POOLED),
    SmallModel("FLUX.1 Kontext", "Flux", FLUX, (16, 16, 16), TEXT, all_of(POOLED, reference(16, 16, 16))),
    SmallModel(
        "FLUX.1 Fill", "FluxInpaint", {**FLUX, "in_channels": 96}, (16, 16, 16), TEXT,
        all_of(POOLED, drawn(concat_latent_image=(1, 16, 16, 16)), fixed(concat_mask=torch.ones(1, 1, 128, 128)))),
    SmallModel("DiT", dit, DIT, (4, 16, 16), TEXT, class_label),
    SmallModel("FLUX.2", "Flux2", FLUX2, (128, 8, 8), TEXT, NOT_POOLED),
    SmallModel(
        "FLUX.2 Klein with a reference image", "Flux2", {**FLUX2, "guidance_embed": False}, (128, 8, 8), TEXT,
        all_of(NOT_POOLED, reference(128, 8, 8))),
    SmallModel(
        "FLUX.2 Klein with a reference image at timestep 0", "Flux2", {**FLUX2, "guidance_embed": False}, (128, 8, 8),
        TEXT, all_of(NOT_POOLED, reference(128, 8, 8), fixed(reference_latents_method="index_timestep_zero"))),
    SmallModel("Chroma", "Chroma", CHROMA, (16, 16, 16), TEXT, NOT_POOLED),
    SmallModel("Chroma Radiance", "ChromaRadiance", RADIANCE, (3, 64, 64), TEXT, NOT_POOLED),
    SmallModel("HunyuanImage 2.1", "HunyuanImage21", HUNYUAN, (64, 8, 8), TEXT),
    SmallModel(
        "HunyuanImage 2.1 distilled", "HunyuanImage21", {**HUNYUAN, "guidance_embed": True, "meanflow": True},
        (64, 8, 8), TEXT),
    SmallModel(
        "HunyuanImage 2.1 refiner", "HunyuanImage21Refiner",
        {**HUNYUAN, "in_channels": 128, "patch_size": [1, 1, 1], "axes_dim": TWO_HEADS},
        (64, 1, 8, 8), TEXT),
    SmallModel("SD3.5 Large", "SD3", SD3, (16, 16, 16), TEXT, POOLED),
    SmallModel("SD3.5 Medium", "SD3", {**SD3, "x_block_self_attn_layers": [0, 1]}, (16, 16, 16), TEXT, POOLED),
    SmallModel("AuraFlow", "AuraFlow", AURA, (4, 16, 16), TEXT),
    SmallModel("Qwen-Image", "QwenImage", QWEN, (16, 1, 16, 16), TEXT),
    SmallModel("Qwen-Image-Edit", "QwenImage", QWEN, (16, 1, 16, 16), TEXT, reference(16, 1, 16, 16)),
    SmallModel(
        "Qwen-Image-Edit-2511", "QwenImage", {**QWEN, "default_ref_method": "index_timestep_zero"},
        (16, 1, 16, 16), TEXT, reference(16, 1, 16, 16)),
    SmallModel("Qwen-Image 2.1", "QwenImage21", QWEN21, (64, 8, 8), TEXT),
    SmallModel("Lumina 2", "Lumina2", LUMINA, (16, 16, 16), TEXT, ALL_TOKENS),
    SmallModel("Z-Image", "ZImage", Z_IMAGE, (16, 16, 16), TEXT),
    SmallModel(
        "Z-Image Omni", "ZImage", Z_IMAGE, (16, 16, 16), TEXT, reference(16, 16, 16),
        needs=("comfy.ldm.lumina.model.NextDiT", "siglip_feat_dim")),
    SmallModel(
        "HiDream-I1", "HiDream", HIDREAM, (16, 16, 16), TEXT, all_of(POOLED, drawn(conditioning_llama3=(1, 2, 4, 64)))),
    SmallModel("Cosmos Predict2", "CosmosT2IPredict2", COSMOS, (16, 1, 16, 16), TEXT),
    SmallModel("PixArt-alpha", "PixArtAlpha", PIXART, (4, 34, 34), TEXT, fixed(width=512, height=768)),
    SmallModel("PixArt-alpha without sizes", "PixArtAlpha", PIXART, (4, 34, 34), TEXT),
    SmallModel(
        "PixArt-Sigma", "PixArtSigma", {**PIXART, "image_model": "pixart_sigma", "micro_condition": False},
        (4, 34, 34), TEXT),
    SmallModel("HunyuanDiT 1.2", "HunyuanDiT", HYDIT, (4, 16, 16), TEXT, HYDIT_TEXT),
    SmallModel(
        "HunyuanDiT 1.1", "HunyuanDiT1",
        {**HYDIT, "image_model": "hydit1", "size_cond": True, "use_style_cond": True}, (4, 16, 16), TEXT, HYDIT_TEXT),
    SmallModel("OmniGen2", "Omnigen2", OMNIGEN, (16, 16, 16), TEXT, ALL_TOKENS),
    SmallModel(
        "OmniGen2 with a reference image", "Omnigen2", OMNIGEN, (16, 16, 16), TEXT,
        all_of(ALL_TOKENS, reference(16, 16, 16))),
    SmallModel("Kandinsky 5 Image", "Kandinsky5Image", KANDINSKY, (16, 16, 16), TEXT, POOLED),
    SmallModel("SD1.5", "SD15", SD15, (4, 16, 16), TEXT),
    SmallModel("SDXL", "SDXL", SDXL, (4, 16, 16), TEXT, all_of(POOLED, fixed(width=1024, height=1024))),
    SmallModel("LongCat-Image", "LongCatImage", LONGCAT, (16, 16, 16), TEXT),
    SmallModel("Lens", "Lens", LENS, (128, 8, 8), TEXT),
    SmallModel("PixelDiT", "PixelDiTT2I", PIXELDIT, (3, 32, 32), TEXT),
    SmallModel(
        "PiD", "PiD", PID, (3, 32, 32), TEXT,
        all_of(drawn(lq_latent=(1, 16, 4, 4)), fixed(degrade_sigma=torch.tensor([0.1])))),
    SmallModel(
        "PiD 1.5", "PiD", PID | {"pit_lq_inject": True, "lq_gate_per_token": True}, (3, 32, 32), TEXT,
        all_of(drawn(lq_latent=(1, 16, 4, 4)), fixed(degrade_sigma=torch.tensor([0.1])))),
    SmallModel("Z-Image pixel space", "ZImagePixelSpace", Z_IMAGE_PIXELS, (3, 64, 64), TEXT),
    SmallModel("Boogu", "Boogu", BOOGU, (16, 16, 16), TEXT, ALL_TOKENS),
    SmallModel(
        "Boogu with a reference image", "Boogu", BOOGU, (16, 16, 16), TEXT,
        all_of(ALL_TOKENS, reference(16, 16, 16))),
    SmallModel("ERNIE-Image", "ErnieImage", ERNIE, (128, 8, 8), TEXT),
    SmallModel("Ideogram 4", "Ideogram4", IDEOGRAM, (128, 8, 8), TEXT),
    SmallModel("Krea 2", "Krea2", KREA, (16, 1, 16, 16), TEXT),
    SmallModel("JoyImage", "JoyImage", JOY, (16, 1, 16, 16), TEXT, reference(16, 1, 16, 16)),
    SmallModel("Mage-Flow", "MageFlow", MAGE, (128, 8, 8), TEXT),
    SmallModel("HiDream-O1", "HiDreamO1", HIDREAM_O1, (3, 128, 128), TEXT, prompt_and_timestep_token),
)
