"""DiT at any size (Peebles and Xie 2023, "Scalable Diffusion Models with Transformers"), with the original's key names.

Imports torch only. ComfyUI passes its own `operations` (layers that cast and offload) and attention; with torch's
own, the same class is trained and sampled without ComfyUI.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 256  # of the timestep embedding

Attention = Callable[..., Tensor]
"""(q, k, v, heads, transformer_options=…) -> mixed values; all (B, T, D)."""
Replacement = Callable[[dict[str, Any], dict[str, Any]], dict[str, Tensor]]
"""ComfyUI's patches_replace: (what the block takes, {"original_block": …}) -> what it returns."""


@dataclass(frozen=True)
class DiTConfig:
    hidden: int
    depth: int
    heads: int
    patch: int
    in_channels: int
    out_channels: int  # twice in_channels where the variance is learned
    classes: int  # without the null class
    grid: int | None  # tokens along a side, at the size the model was trained for; None: at any size
    mlp_ratio: int = 4


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, attend: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.heads, self.attend = heads, attend
        self.qkv = operations.Linear(dim, 3 * dim, **factory)
        self.proj = operations.Linear(dim, dim, **factory)

    def forward(self, x: Tensor, options: dict[str, Any]) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(self.attend(q, k, v, self.heads, transformer_options=options))


class Mlp(nn.Module):
    def __init__(self, dim: int, ratio: int, operations: Any, **factory: Any):
        super().__init__()
        self.fc1 = operations.Linear(dim, ratio * dim, **factory)
        self.fc2 = operations.Linear(ratio * dim, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


@dataclass
class Modulation:
    shift: Tensor  # each (B, 1, D)
    scale: Tensor
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + self.scale) + self.shift


class AdaLNModulation(nn.Sequential):
    """Condition (B, D) -> the block's two modulations. Keys as in the original: adaLN_modulation.1."""

    def __init__(self, dim: int, operations: Any, **factory: Any):
        super().__init__(nn.SiLU(), operations.Linear(dim, 6 * dim, **factory))

    def forward(self, c: Tensor) -> tuple[Modulation, Modulation]:
        parts = super().forward(c)[:, None].chunk(6, dim=-1)
        return Modulation(*parts[:3]), Modulation(*parts[3:])


class DiTBlock(nn.Module):
    def __init__(self, config: DiTConfig, attend: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.attn = SelfAttention(config.hidden, config.heads, attend, operations, **factory)
        self.mlp = Mlp(config.hidden, config.mlp_ratio, operations, **factory)
        self.adaLN_modulation = AdaLNModulation(config.hidden, operations, **factory)

    def forward(self, x: Tensor, c: Tensor, options: dict[str, Any]) -> Tensor:
        attend, feed = self.adaLN_modulation(c)
        x = x + attend.gate * self.attn(attend(x), options)
        return x + feed.gate * self.mlp(feed(x))


class FinalLayer(nn.Module):
    def __init__(self, config: DiTConfig, operations: Any, **factory: Any):
        super().__init__()
        self.linear = operations.Linear(config.hidden, config.patch**2 * config.out_channels, **factory)
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), operations.Linear(config.hidden, 2 * config.hidden, **factory))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)


class PatchEmbedder(nn.Module):
    def __init__(self, config: DiTConfig, operations: Any, **factory: Any):
        super().__init__()
        self.proj = operations.Conv2d(config.in_channels, config.hidden, config.patch, config.patch, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    def __init__(self, dim: int, operations: Any, **factory: Any):
        super().__init__()
        self.mlp = nn.Sequential(operations.Linear(FREQUENCIES, dim, **factory), nn.SiLU(),
                                 operations.Linear(dim, dim, **factory))

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        half = FREQUENCIES // 2
        rates = torch.exp(-math.log(10000) / half * torch.arange(half, device=timesteps.device))
        angles = timesteps[:, None].float() * rates
        return self.mlp(torch.cat((angles.cos(), angles.sin()), -1).to(dtype))


class LabelEmbedder(nn.Module):
    def __init__(self, config: DiTConfig, operations: Any, **factory: Any):
        super().__init__()
        self.embedding_table = operations.Embedding(config.classes + 1, config.hidden, **factory)

    def forward(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        return self.embedding_table(labels).to(dtype)


class DiT(nn.Module):
    """Noise of a noisy latent, and its variance where learned, given timestep and class.

    The class after the last is the null class, for guidance. `forward` is `head(trunk(…))`, so that a caller can
    forecast what lies between.
    """

    def __init__(self, config: DiTConfig, attend: Attention = attention, operations: Any = nn,
                 dtype: torch.dtype | None = None, device: Any = None):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.config, self.dtype = config, dtype or torch.float32
        self.patch_size = config.patch  # under the name that ComfyUI's own models have it
        self.x_embedder = PatchEmbedder(config, operations, **factory)
        self.t_embedder = TimestepEmbedder(config.hidden, operations, **factory)
        self.y_embedder = LabelEmbedder(config, operations, **factory)
        self.blocks = nn.ModuleList(DiTBlock(config, attend, operations, **factory) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, operations, **factory)
        if config.grid:
            self.register_buffer("pos_embed", sine_positions(config, config.grid, config.grid)[None].to(**factory))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """x (B, C, H, W), timesteps (B,) 0 … 999, y (B,) class indices -> (B, out_channels, H, W)."""
        c = self.condition(timesteps, y, x.dtype)
        return self.head(self.trunk(x, c, options), c, (x.shape[2], x.shape[3]))

    def condition(self, timesteps: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
        return self.t_embedder(timesteps, dtype) + self.y_embedder(y, dtype)  # (B, D)

    def trunk(self, x: Tensor, c: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """Hidden state (B, T, D) of a latent (B, C, H, W), whose sides need not be multiples of the patch."""
        options = options or {}
        replaced: dict[Any, Replacement] = options.get("patches_replace", {}).get("dit", {})
        pad_rows, pad_columns = (-side % self.config.patch for side in x.shape[2:])
        if pad_rows or pad_columns:
            x = F.pad(x, (0, pad_columns, 0, pad_rows), mode="replicate")
        rows, columns = self._grid(x.shape[2:])
        native = rows == columns == self.config.grid
        positions = self.pos_embed if native else _positions_on(x.device, self.config, rows, columns)
        hidden = self.x_embedder(x) + positions.to(x)
        for i, block in enumerate(self.blocks):
            replacement = replaced.get(("double_block", i))
            if replacement is None:
                hidden = block(hidden, c, options)
            else:
                arguments = {"img": hidden, "vec": c, "transformer_options": options}
                hidden = replacement(arguments, {"original_block": _as_replacement(block)})["img"]
        return hidden

    def head(self, hidden: Tensor, c: Tensor, size: tuple[int, int]) -> Tensor:
        """Hidden state (B, T, D) -> (B, out_channels, H, W); `size` is (H, W)."""
        patch, (rows, columns) = self.config.patch, self._grid(size)
        pixels = self.final_layer(hidden, c).unflatten(1, (rows, columns)).unflatten(3, (patch, patch, -1))
        image = pixels.permute(0, 5, 1, 3, 2, 4).reshape(len(hidden), -1, rows * patch, columns * patch)
        return image[:, :, : size[0], : size[1]]

    def _grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        return -(-size[0] // self.config.patch), -(-size[1] // self.config.patch)


def sine_positions(config: DiTConfig, rows: int, columns: int) -> Tensor:
    """Fixed sine-cosine embedding (rows · columns, D); the trained size's grid is stretched over another size."""
    rates = 1 / 10000 ** (torch.arange(config.hidden // 4, dtype=torch.float64) / (config.hidden // 4))

    def along(tokens: int) -> Tensor:
        places = torch.arange(tokens, dtype=torch.float64) * ((config.grid or tokens) / tokens)
        angles = places[:, None] * rates
        return torch.cat((angles.sin(), angles.cos()), -1)

    column, row = along(columns), along(rows)
    return torch.cat((column.repeat(rows, 1), row.repeat_interleave(columns, 0)), -1).float()


@lru_cache(maxsize=8)
def _positions_on(device: torch.device, config: DiTConfig, rows: int, columns: int) -> Tensor:
    """Kept, lest a run compute them and send them to the device at every step."""
    with torch.inference_mode(False):  # what inference makes could not be used outside of it
        return sine_positions(config, rows, columns).to(device)


def _as_replacement(block: nn.Module) -> Callable[[dict[str, Any]], dict[str, Tensor]]:
    return lambda args: {"img": block(args["img"], args["vec"], args["transformer_options"])}
