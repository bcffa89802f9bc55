"""Flux at any size, standalone: the architecture and key names of black-forest-labs' checkpoints.

It exists so that a small Flux can be trained and sampled without ComfyUI. Inside ComfyUI the host's own Flux
loads the same file. Differences from the original are of size only: the checkpoint's shapes say how big it is.

Source: the FLUX.1 release (Black Forest Labs, 2024) for the architecture; MM-DiT blocks after Esser et al. 2024,
parallel single-stream blocks after Dehghani et al. 2023 (ViT-22B), rotary embedding after Su et al. 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = 128
ROPE_AXES = (16, 56, 56)  # index, row, column: they share the 128 channels of a head


@dataclass(frozen=True)
class FluxConfig:
    hidden: int = 128
    double_blocks: int = 2
    single_blocks: int = 6
    latent_channels: int = 16
    context_dim: int = 64
    pooled_dim: int = 16
    patch: int = 2
    guidance: bool = True

    @classmethod
    def from_state_dict(cls, weights: dict[str, Tensor]) -> FluxConfig:
        """Reads every size from the weights' own shapes."""
        def depth(prefix: str) -> int:
            return 1 + max(int(k.split(".")[1]) for k in weights if k.startswith(prefix))

        hidden, patched_channels = weights["img_in.weight"].shape
        return cls(
            hidden=hidden,
            double_blocks=depth("double_blocks."),
            single_blocks=depth("single_blocks."),
            latent_channels=patched_channels // 4,
            context_dim=weights["txt_in.weight"].shape[1],
            pooled_dim=weights["vector_in.in_layer.weight"].shape[1],
            guidance="guidance_in.in_layer.weight" in weights,
        )


@dataclass
class Modulation:
    shift: Tensor
    scale: Tensor
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x * (1 + self.scale) + self.shift


class RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float(), eps=1e-6).to(x.dtype)


class QKNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)


class Embedder(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.in_layer = nn.Linear(dim, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class ModulationLayer(nn.Module):
    """One (shift, scale, gate) triple per branch, each (B, 1, D), from the conditioning vector (B, D)."""

    def __init__(self, dim: int, branches: int):
        super().__init__()
        self.branches = branches
        self.lin = nn.Linear(dim, 3 * branches * dim)

    def forward(self, vec: Tensor) -> list[Modulation]:
        parts = self.lin(F.silu(vec))[:, None].chunk(3 * self.branches, dim=-1)
        return [Modulation(*parts[3 * i : 3 * i + 3]) for i in range(self.branches)]


class Attention(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.norm = QKNorm(HEAD_DIM)
        self.proj = nn.Linear(dim, dim)


def normalise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def split_heads(qkv: Tensor, norm: QKNorm) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)  # 3 × (B, H, T, 128)
    return norm.query_norm(q), norm.key_norm(k), v


def attend(q: Tensor, k: Tensor, v: Tensor, rope: Tensor) -> Tensor:
    q, k = rotate(q, rope), rotate(k, rope)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, T, D)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = rope.unbind(-1)
    even, odd = pairs.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rope_table(positions: Tensor) -> Tensor:
    """(T, 3) token positions -> (T, 64, 2) cosines and sines."""
    angles = [
        positions[:, axis, None].double() / 10000 ** (
            torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
        for axis, dim in enumerate(ROPE_AXES)
    ]
    table = torch.cat(angles, dim=-1)
    return torch.stack((table.cos(), table.sin()), -1).float()


class RopeEmbedder(nn.Module):
    """Positions of text tokens, all 0, and image tokens, (0, row, column) -> rotary table (T, 64, 2)."""

    def forward(self, tokens: int, rows: int, columns: int, device: torch.device) -> Tensor:
        with device:  # nothing is copied to a GPU: that would wait for it, and can't be captured in a graph
            grid = torch.cartesian_prod(torch.zeros(1), torch.arange(float(rows)), torch.arange(float(columns)))
            return rope_table(torch.cat((torch.zeros(tokens, 3), grid)))


def timestep_embedding(t: Tensor, dim: int = 256) -> Tensor:
    freqs = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    args = 1000 * t[:, None].float() * freqs
    return torch.cat((args.cos(), args.sin()), -1)


class DoubleStreamBlock(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", ModulationLayer(dim, 2))
            self.add_module(f"{stream}_attn", Attention(dim))
            mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU("tanh"), nn.Linear(4 * dim, dim))
            self.add_module(f"{stream}_mlp", mlp)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        img_attn_mod, img_mlp_mod = self.img_mod(vec)
        txt_attn_mod, txt_mlp_mod = self.txt_mod(vec)
        img_qkv = split_heads(self.img_attn.qkv(img_attn_mod(normalise(img))), self.img_attn.norm)
        txt_qkv = split_heads(self.txt_attn.qkv(txt_attn_mod(normalise(txt))), self.txt_attn.norm)
        q, k, v = (torch.cat(pair, 2) for pair in zip(txt_qkv, img_qkv, strict=True))
        mixed = attend(q, k, v, rope)
        txt_mixed, img_mixed = mixed[:, : txt.shape[1]], mixed[:, txt.shape[1] :]

        img = img + img_attn_mod.gate * self.img_attn.proj(img_mixed)
        img = img + img_mlp_mod.gate * self.img_mlp(img_mlp_mod(normalise(img)))
        txt = txt + txt_attn_mod.gate * self.txt_attn.proj(txt_mixed)
        txt = txt + txt_mlp_mod.gate * self.txt_mlp(txt_mlp_mod(normalise(txt)))
        return img, txt


class SingleStreamBlock(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.modulation = ModulationLayer(dim, 1)
        self.linear1 = nn.Linear(dim, 7 * dim)  # q, k, v and the MLP's 4·D
        self.linear2 = nn.Linear(5 * dim, dim)
        self.norm = QKNorm(HEAD_DIM)

    def forward(self, x: Tensor, vec: Tensor, rope: Tensor) -> Tensor:
        (mod,) = self.modulation(vec)
        qkv, mlp = self.linear1(mod(normalise(x))).split((3 * x.shape[-1], 4 * x.shape[-1]), dim=-1)
        mixed = attend(*split_heads(qkv, self.norm), rope)
        return x + mod.gate * self.linear2(torch.cat((mixed, F.gelu(mlp, approximate="tanh")), -1))


class FinalLayer(nn.Module):
    def __init__(self, dim: int, out: int):
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(normalise(x) * (1 + scale) + shift)


class Flux(nn.Module):
    """Rectified-flow transformer: velocity of a noisy latent, given context tokens.

    `forward` is `head(trunk(...))`, so that a caller can forecast what lies between.
    """

    def __init__(self, config: FluxConfig):
        super().__init__()
        self.config, d = config, config.hidden
        patched = config.latent_channels * config.patch**2
        self.img_in = nn.Linear(patched, d)
        self.txt_in = nn.Linear(config.context_dim, d)
        self.time_in = Embedder(256, d)
        self.vector_in = Embedder(config.pooled_dim, d)
        self.pe_embedder = RopeEmbedder()
        self.guidance_in = Embedder(256, d) if config.guidance else None
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(d) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(d) for _ in range(config.single_blocks))
        self.final_layer = FinalLayer(d, patched)

    def condition(self, t: Tensor, guidance: Tensor) -> Tensor:
        """Timestep and guidance, each (B,), to the conditioning vector (B, D). The pooled prompt is left at zero."""
        dtype = self.img_in.weight.dtype
        vec = self.time_in(timestep_embedding(t).to(dtype))
        if self.guidance_in is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(dtype))
        return vec + self.vector_in(vec.new_zeros(len(t), self.config.pooled_dim))

    def trunk(self, x: Tensor, vec: Tensor, context: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """Latent (B, C, H, W), vector (B, D), context (B, T, context_dim) -> hidden state (B, H·W/4, D).

        `options` are ComfyUI's transformer_options, of which block replacements are heeded.
        """
        replaced = (options or {}).get("patches_replace", {}).get("dit", {})
        img = self.img_in(F.pixel_unshuffle(x, self.config.patch).flatten(2).transpose(1, 2))
        txt = self.txt_in(context)
        patch = self.config.patch
        rope = self.pe_embedder(txt.shape[1], x.shape[2] // patch, x.shape[3] // patch, x.device)
        for i, block in enumerate(self.double_blocks):
            if replacement := replaced.get(("double_block", i)):
                states = replacement({"img": img, "txt": txt, "vec": vec}, {})
                img, txt = states["img"], states["txt"]
            else:
                img, txt = block(img, txt, vec, rope)
        joint = torch.cat((txt, img), 1)
        for i, block in enumerate(self.single_blocks):
            if replacement := replaced.get(("single_block", i)):
                joint = replacement({"img": joint, "vec": vec}, {})["img"]
            else:
                joint = block(joint, vec, rope)
        return joint[:, txt.shape[1] :]

    def head(self, hidden: Tensor, vec: Tensor, size: tuple[int, int]) -> Tensor:
        """Hidden state (B, H·W/4, D) -> velocity (B, C, H, W); `size` is (H, W)."""
        patched = self.final_layer(hidden, vec).transpose(1, 2)
        return F.pixel_shuffle(patched.unflatten(2, (size[0] // 2, size[1] // 2)), self.config.patch)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, guidance: Tensor,
                options: dict[str, Any] | None = None) -> Tensor:
        vec = self.condition(t, guidance)
        return self.head(self.trunk(x, vec, context, options), vec, (x.shape[2], x.shape[3]))
