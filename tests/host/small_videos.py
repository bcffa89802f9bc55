"""ComfyUI's video, audio and 3D models, small: what small_models.py builds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from comfy_host import comfy
from small_models import NOTHING_ELSE, Extra, SmallModel, all_of, drawn, fixed

TEXT = (4, 32)
FRAMES = (16, 3, 8, 8)


def seen(name: str = "clip_vision_output", tokens: int = 5, width: int = 1280) -> Extra:
    """The output of a CLIP vision encoder."""
    def extra(generator: torch.Generator) -> dict[str, Any]:
        hidden = torch.randn(1, tokens, width, generator=generator)
        return {name: SimpleNamespace(last_hidden_state=hidden, penultimate_hidden_states=hidden)}
    return extra


def first_frame_kept(frames: int, height: int, width: int) -> torch.Tensor:
    """A denoise mask: the first frame is given, the others are to be sampled."""
    mask = torch.ones(1, 1, frames, height, width)
    mask[:, :, 0] = 0.0
    return mask


def ltxv_keyframe(_: torch.Generator) -> dict[str, Any]:
    """The last latent frame is a keyframe placed at frame 8, one of its tokens is dropped."""
    ltx = comfy.ldm.lightricks.symmetric_patchifier
    patchifier = ltx.SymmetricPatchifier(1)
    patchifier.start_end = True
    _, coords = patchifier.patchify(torch.zeros(1, 128, 1, 4, 4))
    keyframe = ltx.latent_to_pixel_coords(coords, (8, 32, 32), causal_fix=False)
    keyframe[:, 0] += 8
    mask = torch.ones(1, 1, 3, 4, 4)
    mask[:, :, -1] = 0.0
    mask[:, :, -1, 0, 0] = -1.0
    return {"attention_mask": ALL_TOKENS, "keyframe_idxs": keyframe, "denoise_mask": mask}


ALL_TOKENS = torch.ones(1, TEXT[0], dtype=torch.long)

HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": 32,
    "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "axes_dim": [8, 12, 12],
    "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}
HUNYUAN15 = HUNYUAN | {
    "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None, "guidance_embed": False,
    "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 32, "meanflow_sum": True,
}
POOLED = drawn(pooled_output=(1, 16))
GLYPHS_AND_VISION = all_of(
    fixed(pooled_output=None), drawn(conditioning_byt5small=(1, 3, 1472)), seen(width=32))

WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "out_dim": 16, "dim": 96, "ffn_dim": 128,
    "num_heads": 2, "num_layers": 3, "text_dim": 32, "freq_dim": 32,
}
WAN_I2V = WAN | {"model_type": "i2v", "in_dim": 36}
STILL = drawn(concat_latent_image=(1, 16, 3, 8, 8), concat_mask=(1, 4, 3, 8, 8))

LTXV = {
    "image_model": "ltxv", "in_channels": 128, "attention_head_dim": 32, "num_attention_heads": 2, "num_layers": 3,
    "cross_attention_dim": 64, "caption_channels": 32,
}
LTXAV = LTXV | {
    "image_model": "ltxav", "audio_attention_head_dim": 16, "audio_num_attention_heads": 2,
    "audio_cross_attention_dim": 32, "connector_attention_head_dim": 16, "connector_num_attention_heads": 2,
    "connector_num_layers": 1,
}

COSMOS = {
    "image_model": "cosmos", "max_img_h": 32, "max_img_w": 32, "max_frames": 16, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 3, "num_heads": 2,
    "block_config": "FA-CA-MLP", "block_x_format": "THWBD", "crossattn_emb_channels": 32, "pos_emb_cls": "rope3d",
    "affline_emb_norm": True, "use_adaln_lora": True, "adaln_lora_dim": 16, "rope_t_extrapolation_ratio": 2.0,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}
COSMOS2 = {
    "image_model": "cosmos_predict2", "max_img_h": 32, "max_img_w": 32, "max_frames": 16, "in_channels": 17,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 3, "num_heads": 2,
    "crossattn_emb_channels": 32, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True,
    "adaln_lora_dim": 16, "rope_enable_fps_modulation": False,
}

KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 64, "ff_dim": 128, "time_dim": 32, "axes_dims": (8, 12, 12),
    "visual_embed_dim": 132, "in_text_dim": 32, "in_text_dim2": 16, "num_text_blocks": 2, "num_visual_blocks": 3,
}

STABLE_AUDIO = {
    "audio_model": "dit1.0", "io_channels": 64, "embed_dim": 64, "num_heads": 2, "depth": 3, "cond_token_dim": 768,
    "project_cond_tokens": True, "global_cond_dim": 1536,
}
STABLE_AUDIO_3 = STABLE_AUDIO | {
    "global_cond_shared_embed": True, "global_cond_type": "adaLN", "global_cond_dim": 768, "io_channels": 256,
    "timestep_features_type": "expo", "local_add_cond_dim": 257, "num_memory_tokens": 4, "norm_type": "rms_norm",
    "attn_kwargs": {"qk_norm": "rms", "differential": True},
}

COGVIDEO = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 32, "time_embed_dim": 32,
    "text_embed_dim": 32, "num_layers": 3, "use_rotary_positional_embeddings": True,
}

MINIMAX = {
    "image_model": "minimax_h3", "hidden_size": 256, "num_layers": 3, "token_refiner_num_layers": 1,
    "num_attention_heads": 4, "attention_head_dim": 64, "ffn_hidden_size": 256, "latents_dim": 24,
    "audio_latents_dim": 32, "text_dim": 32, "timestep_input_dim": 64, "time_embed_hidden_size": 128,
    "time_embed_dim": 128, "rope_inv_freq_len": 4,
}
MINIMAX_VIDEO, MINIMAX_AUDIO = (24, 3, 6, 8), (32, 2, 7)


def minimax(name: str, extra: Extra = NOTHING_ELSE, **unet: Any) -> SmallModel:
    return SmallModel(
        f"MiniMax-H3 {name}", "MiniMaxH3", MINIMAX | unet, MINIMAX_VIDEO, TEXT, extra, beside=MINIMAX_AUDIO,
        single=True, gain=2.0)


def keyframes(generator: torch.Generator) -> dict[str, Any]:
    """The first frame with its sound, and the last."""
    def frame(index: int, **audio: torch.Tensor) -> dict[str, Any]:
        return {"resolved_frame_index": index, "latent": torch.randn(1, 24, 1, 6, 8, generator=generator), **audio}

    return {"minimax_keyframes": [frame(0, audio_latent=torch.randn(1, 32, 2, 2, generator=generator)), frame(8)]}


def references(generator: torch.Generator) -> dict[str, Any]:
    """An image, a video with its sound, and a sound."""
    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    return {"minimax_refs": [
        {"kind": "image", "latent_h": 4, "latent_w": 6, "latent": drawn(24, 1, 4, 6)},
        {"kind": "video_audio", "latent_t": 2, "latent_h": 4, "latent_w": 4, "ref_audio_t": 3,
         "latent": drawn(24, 2, 4, 4), "audio_latent": drawn(32, 2, 3)},
        {"kind": "audio", "ref_audio_t": 2, "audio_latent": drawn(32, 2, 2)},
    ]}


def parts_kept(_: torch.Generator) -> dict[str, Any]:
    """Of the video the first frame is given, of the audio the first half, as packed as the latents are."""
    video, audio = torch.ones(1, *MINIMAX_VIDEO), torch.ones(1, *MINIMAX_AUDIO)
    video[:, :, 0], audio[..., :3] = 0.0, 0.0
    return {"denoise_mask": comfy.utils.pack_latents([video, audio])[0]}


def seconds(name: str, features: int) -> dict[str, tuple[int, ...]]:
    """The shapes of one of Stable Audio's embeddings of a duration."""
    embedding = f"conditioner.conditioners.{name}.embedder.embedding"
    return {f"{embedding}.1.weight": (768, features), f"{embedding}.1.bias": (768,)}


def learned(name: str) -> dict[str, tuple[int, ...]]:
    return {f"conditioner.conditioners.{name}.embedder.embedding.0.weights": (128,)} | seconds(name, 257)


VIDEOS: tuple[SmallModel, ...] = (
    SmallModel("HunyuanVideo text to video", "HunyuanVideo", HUNYUAN, FRAMES, TEXT, POOLED),
    SmallModel(
        "HunyuanVideo image to video, concat", "HunyuanVideoI2V", HUNYUAN | {"in_channels": 33}, FRAMES, TEXT,
        all_of(POOLED, drawn(concat_latent_image=(1, 16, 3, 8, 8)), fixed(concat_mask=first_frame_kept(3, 8, 8)))),
    SmallModel(
        "SkyReels V1 image to video", "HunyuanVideoSkyreelsI2V", HUNYUAN | {"in_channels": 32}, FRAMES, TEXT,
        all_of(POOLED, drawn(concat_latent_image=(1, 16, 3, 8, 8)))),
    SmallModel(
        "HunyuanVideo 1.5", "HunyuanVideo15", HUNYUAN15, (32, 3, 4, 4), TEXT,
        all_of(GLYPHS_AND_VISION, drawn(concat_latent_image=(1, 32, 3, 4, 4)))),
    SmallModel(
        "HunyuanVideo 1.5 super resolution, distilled", "HunyuanVideo15_SR_Distilled",
        HUNYUAN15 | {"in_channels": 98, "meanflow": True}, (32, 3, 4, 4), TEXT,
        all_of(GLYPHS_AND_VISION, drawn(concat_latent_image=(1, 66, 3, 4, 4)))),

    SmallModel("Wan 2.1 text to video", "WAN21_T2V", WAN, FRAMES, TEXT),
    SmallModel("Wan 2.1 image to video", "WAN21_I2V", WAN_I2V, FRAMES, TEXT, all_of(STILL, seen())),
    SmallModel(
        "Wan 2.1 Fun Control", "WAN21_FunControl2V", WAN_I2V | {"in_dim": 48, "in_dim_ref_conv": 16}, FRAMES, TEXT,
        all_of(drawn(concat_latent_image=(1, 32, 3, 8, 8)), seen(),
               drawn(("reference_latents",), reference_latents=(1, 16, 1, 8, 8)))),
    SmallModel(
        "Wan 2.1 VACE", "WAN21_Vace",
        WAN | {"model_type": "vace", "num_layers": 4, "vace_layers": 2, "vace_in_dim": 96}, FRAMES, TEXT, all_of(
            drawn(("vace_frames", "vace_mask"), vace_frames=(1, 32, 3, 8, 8), vace_mask=(1, 64, 3, 8, 8)),
            fixed(vace_strength=[0.8]))),
    SmallModel(
        "Wan 2.1 Camera", "WAN21_Camera", WAN | {"model_type": "camera", "in_dim": 32}, FRAMES, TEXT,
        all_of(drawn(concat_latent_image=(1, 16, 3, 8, 8), camera_conditions=(1, 24, 3, 64, 64)), seen())),
    SmallModel(
        "Wan 2.2 Camera", "WAN22_Camera", WAN | {"model_type": "camera_2.2", "in_dim": 36}, FRAMES, TEXT,
        drawn(concat_latent_image=(1, 16, 3, 8, 8), camera_conditions=(1, 24, 3, 64, 64))),
    SmallModel(
        "Wan 2.1 HuMo", "WAN21_HuMo", WAN | {"model_type": "humo", "in_dim": 36}, FRAMES, TEXT,
        drawn(("reference_latents",), audio_embed=(1, 3, 8, 5, 1280), reference_latents=(1, 16, 1, 8, 8))),
    SmallModel(
        "Wan 2.2 5B", "WAN22_T2V", WAN | {"in_dim": 48, "out_dim": 48}, (48, 3, 4, 4), TEXT),
    SmallModel(
        "Wan 2.2 5B image to video", "WAN22_T2V", WAN | {"in_dim": 48, "out_dim": 48}, (48, 3, 4, 4), TEXT,
        fixed(denoise_mask=first_frame_kept(3, 4, 4))),
    SmallModel("Wan 2.2 14B image to video", "WAN21_T2V", WAN | {"in_dim": 36}, FRAMES, TEXT, STILL),
    SmallModel(
        "Wan 2.2 S2V", "WAN22_S2V",
        WAN | {"model_type": "s2v", "audio_dim": 16, "num_audio_token": 4, "audio_inject_layers": [0, 1]}, FRAMES, TEXT,
        drawn(("reference_latents",), audio_embed=(1, 25, 16, 12), reference_latents=(1, 16, 1, 8, 8),
              reference_motion=(1, 16, 19, 8, 8), control_video=(1, *FRAMES))),
    SmallModel(
        "Wan 2.2 Animate", "WAN22_Animate", WAN_I2V | {"model_type": "animate", "num_layers": 5}, FRAMES, TEXT,
        all_of(STILL, seen(), drawn(pose_video_latent=(1, 16, 2, 8, 8)))),
    SmallModel(
        "Wan SCAIL", "WAN21_SCAIL", WAN | {"model_type": "scail", "in_dim": 20}, FRAMES, TEXT,
        all_of(seen(), drawn(
            ("reference_latents",), reference_latents=(1, 16, 1, 8, 8), pose_video_latent=(1, 16, 3, 4, 4)))),
    SmallModel(
        "Wan Dancer", "WAN22_WanDancer",
        WAN_I2V | {"model_type": "wandancer", "audio_inject_layers": [0, 1], "music_dim": 64, "music_latent_dim": 64},
        FRAMES, TEXT, all_of(
            STILL, seen(), seen("clip_vision_output_ref"), drawn(audio_embed=(1, 12, 35)), fixed(fps=30.0))),
    SmallModel(
        "Wan Dancer, keyframes first", "WAN22_WanDancer",
        WAN_I2V | {"model_type": "wandancer", "audio_inject_layers": [0, 1], "music_dim": 64, "music_latent_dim": 64},
        FRAMES, TEXT, all_of(
            STILL, seen(), seen("clip_vision_output_ref"), drawn(audio_embed=(1, 12, 35)), fixed(fps=7.5))),

    SmallModel("LTXV text to video", "LTXV", LTXV, (128, 3, 4, 4), TEXT, fixed(attention_mask=ALL_TOKENS)),
    SmallModel(
        "LTXV image to video", "LTXV", LTXV, (128, 3, 4, 4), TEXT,
        fixed(attention_mask=ALL_TOKENS, denoise_mask=first_frame_kept(3, 4, 4))),
    SmallModel("LTXV keyframes", "LTXV", LTXV, (128, 3, 4, 4), TEXT, ltxv_keyframe),
    SmallModel("LTX-2 video only", "LTXAV", LTXAV, (128, 3, 4, 4), (4, 64)),

    SmallModel(
        "Mochi", "GenmoMochi", {
            "image_model": "mochi_preview", "depth": 3, "patch_size": 2, "num_heads": 2, "hidden_size_x": 64,
            "hidden_size_y": 32, "mlp_ratio_x": 192.0, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12,
            "qk_norm": True, "qkv_bias": False, "out_bias": True, "timestep_scale": 1000.0, "use_t5": True,
            "t5_feat_dim": 32, "t5_token_length": 8,
        }, (12, 3, 8, 8), TEXT, fixed(attention_mask=ALL_TOKENS)),

    SmallModel("Cosmos text to video", "CosmosT2V", COSMOS, FRAMES, TEXT),
    SmallModel("Cosmos image to video", "CosmosI2V", COSMOS | {"in_channels": 17}, FRAMES, TEXT),
    SmallModel(
        "Cosmos Predict2 video to world", "CosmosI2VPredict2", COSMOS2, FRAMES, TEXT,
        fixed(denoise_mask=first_frame_kept(3, 8, 8))),

    SmallModel("Kandinsky 5 text to video", "Kandinsky5", KANDINSKY, FRAMES, TEXT, POOLED),
    SmallModel(
        "Kandinsky 5 image to video", "Kandinsky5", KANDINSKY, FRAMES, TEXT,
        all_of(POOLED, drawn(time_dim_replace=(1, 16, 1, 8, 8)), fixed(concat_mask=first_frame_kept(3, 8, 8)))),

    SmallModel("CogVideoX text to video", "CogVideoX_T2V", COGVIDEO, FRAMES, TEXT),
    SmallModel(
        "CogVideoX 1.5 image to video", "CogVideoX_I2V",
        COGVIDEO | {"in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 32}, (16, 4, 8, 8), TEXT,
        drawn(concat_latent_image=(1, 16, 4, 8, 8))),

    SmallModel(
        "ACE-Step", "ACEStep", {
            "audio_model": "ace", "attention_head_dim": 32, "num_attention_heads": 2, "num_layers": 3, "mlp_ratio": 2.5,
            "text_embedding_dim": 32, "ssl_latent_dims": [16, 16], "lyric_encoder_vocab_size": 16,
        }, (8, 16, 12), TEXT, fixed(conditioning_lyrics=torch.tensor([[3, 1, 4]]))),
    SmallModel(
        "ACE-Step 1.5", "ACEStep15", {
            "audio_model": "ace1.5", "hidden_size": 64, "text_hidden_dim": 32, "num_dit_layers": 3,
            "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_heads": 4, "num_kv_heads": 2,
            "head_dim": 16, "intermediate_size": 128, "fsq_dim": 64, "encoder_hidden_size": 64,
            "encoder_intermediate_size": 128, "encoder_num_heads": 4,
        }, (64, 20), TEXT, drawn(conditioning_lyrics=(1, 3, 32))),

    SmallModel(
        "Hunyuan3D 2", "Hunyuan3Dv2", {
            "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": 32, "hidden_size": 64, "mlp_ratio": 4.0,
            "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "qkv_bias": True, "guidance_embed": True,
        }, (64, 24), TEXT),

    SmallModel(
        "HunyuanVideo image to video, token replace", "HunyuanVideo", HUNYUAN | {"guidance_embed": False}, FRAMES, TEXT,
        all_of(POOLED, fixed(guiding_frame_index=0)), guided=False),
    SmallModel(
        "HunyuanVideo image to video, reference latent", "HunyuanVideo", HUNYUAN, FRAMES, TEXT,
        all_of(POOLED, drawn(ref_latent=(1, 16, 1, 8, 8))), guided=False),
    SmallModel(
        "Stable Audio", "StableAudio", STABLE_AUDIO, (64, 24), (4, 768),
        weights=learned("seconds_start") | learned("seconds_total")),
    SmallModel(
        "Stable Audio 3", "StableAudio3", STABLE_AUDIO_3, (256, 24), (4, 768), weights=seconds("seconds_total", 256)),
    SmallModel("LTX-2 video and audio", "LTXAV", LTXAV, (128, 3, 4, 4), (4, 64), beside=(8, 5, 16)),
    SmallModel(
        "TripoSplat", "TripoSplat", {
            "image_model": "triposplat", "q_token_length": 16, "model_channels": 64, "num_head_channels": 32,
            "cond_channels": 32, "num_blocks": 3, "num_refiner_blocks": 2,
        }, (16, 16), TEXT, beside=(1, 5), parts=("shape", "camera")),
    SmallModel(
        "Hunyuan3D 2.1", "Hunyuan3Dv2_1", {
            "image_model": "hunyuan3d2_1", "in_channels": 64, "hidden_size": 64, "context_dim": 32, "depth": 5,
            "num_heads": 2, "num_moe_layers": 2, "num_experts": 3, "guidance_cond_proj_dim": None,
        }, (64, 24), TEXT, guided=True),
    SmallModel(
        "Wan SCAIL 2", "WAN21_SCAIL2", WAN | {"model_type": "scail2", "in_dim": 20}, FRAMES, TEXT,
        all_of(seen(), drawn(
            ("reference_latents",), reference_latents=(1, 16, 1, 8, 8), pose_video_latent=(1, 16, 3, 4, 4),
            driving_mask_28ch=(1, 3, 28, 4, 4), ref_mask_28ch=(1, 4, 28, 8, 8)))),
    SmallModel(
        "Wan Animate 2", "WAN_Animate2", WAN_I2V | {"model_type": "animate2"}, FRAMES, TEXT,
        all_of(STILL, seen(), drawn(pose_video_latent=(1, 16, 2, 8, 8)))),
    SmallModel(
        "LTX-2.3 video and audio", "LTXAV", LTXAV | {"cross_attention_adaln": True, "apply_gated_attention": True},
        (128, 3, 4, 4), (4, 64), beside=(8, 5, 16),
        needs=("comfy.ldm.lightricks.av_model.LTXAVModel", "cross_attention_adaln")),
    minimax("text to video and audio"),
    minimax("keyframes", keyframes),
    minimax("references", references),
    minimax("masks", parts_kept),
    minimax("references, adaln curves", references, adaln_curve_grid=9, time_embed_dim=8),
)
