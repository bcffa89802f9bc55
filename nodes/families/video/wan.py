"""Wan 2.1 and 2.2 and what is built on them."""

from __future__ import annotations

from .. import Family, of_class

FAMILY = Family(
    name="Wan",
    matches=of_class(
        "comfy.ldm.wan.model.WanModel",
        "comfy.ldm.wan.model.VaceWanModel",
        "comfy.ldm.wan.model.CameraWanModel",
        "comfy.ldm.wan.model.HumoWanModel",
        "comfy.ldm.wan.model.WanModel_S2V",
        "comfy.ldm.wan.model.SCAILWanModel",
        "comfy.ldm.wan.model.SCAIL2WanModel",
        "comfy.ldm.wan.model_animate.AnimateWanModel",
        "comfy.ldm.wan.model_animate2.WanAnimate2Model",
    ),
    heads=("head",),
    blocks=("blocks",),
    embedders=(
        "audio_proj?", "casual_audio_encoder?", "cond_encoder?", "control_adapter?", "frame_packer?", "img_emb?",
        "patch_embedding", "patch_embedding_mask?", "patch_embedding_pose?", "pose_patch_embedding?", "ref_conv?",
        "rope_embedder", "text_embedding", "time_projection", "vace_patch_embedding?",
    ),
)
