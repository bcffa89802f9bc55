"""Qwen-Image 2.1, which only newer ComfyUIs have: a stand-in with its layout.

Text first, then the image; the head sees the image's tokens alone; keys and values of the text are remembered from one
evaluation for the next, but not by one that has any of its blocks replaced. Where a ComfyUI has the model itself,
test_families.py builds it.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from comfy_host import Replayed, RunCounter, accelerated, comfy, copies, families, femo_core, leftovers, sites
from small_models import SmallModel, build, sample
from torch import nn

WIDTH = 64


class Embedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.out_layer = nn.Linear(width, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out_layer(x)


class Positions(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.cos(ids[:, :, None] * torch.linspace(0.1, 1, WIDTH))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.img_mlp = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, gate, pe, prefix):
        query, key, value = (self.attn(x) * pe.repeat(1, 1, 3)).chunk(3, dim=-1)
        if prefix is not None:
            key, value = (torch.cat([ours, theirs], dim=1)
                          for ours, theirs in zip(prefix, (key, value), strict=True))
        x += gate * nn.functional.scaled_dot_product_attention(query, key, value)
        x += gate * self.img_mlp(x)
        return x, (key, value)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, temb):
        return x * (1 + self.linear(temb)[:, None])


class QwenImage21Transformer2DModel(nn.Module):
    def __init__(self, dtype=None, device=None, operations=None, **_):
        super().__init__()
        self.dtype, self.remembered = torch.float32, {}
        self.pe_embedder, self.txt_in, self.img_in = Positions(), Embedding(32), nn.Linear(16, WIDTH)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.transformer_blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm_out, self.proj_out = Head(), nn.Linear(WIDTH, 16)

    def forward(self, x, timestep, context, transformer_options, **_):
        samples, _, height, width = x.shape
        text = self.txt_in(context)
        state = torch.cat([text, self.img_in(x.flatten(2).transpose(1, 2))], dim=1)
        prefix = text.shape[1]
        pe = self.pe_embedder(torch.arange(state.shape[1])[None].float())
        temb = torch.cos(timestep[:, None] * torch.linspace(0, 1, WIDTH))
        gate = self.modulation(temb)[:, None]
        replaced = transformer_options.get("patches_replace", {}).get("dit", {})
        key = None if replaced else (tuple(context.flatten().tolist()), samples)
        cached = self.remembered.get(key)
        if cached:
            state, pe, prefix = state[:, prefix:], pe[:, prefix:], 0
        made = []
        for i, block in enumerate(self.transformer_blocks):
            state, keys = block(state, gate, pe, cached[i] if cached else None)
            made.append([part[:, :prefix].clone() for part in keys])
        if key and not cached:
            self.remembered[key] = made
        state = self.proj_out(self.norm_out(state[:, prefix:], temb))
        return state.transpose(1, 2).reshape(samples, 16, height, width)


QwenImage21Transformer2DModel.__module__ = "comfy.ldm.qwen_image21.model"


class Config(comfy.supported_models_base.BASE):
    unet_config: ClassVar = {}
    sampling_settings: ClassVar = {"shift": 1.15}
    latent_format = comfy.latent_formats.Flux
    memory_usage_factor = 1.0

    def get_model(self, state_dict, prefix="", device=None):
        return comfy.model_base.BaseModel(
            self, comfy.model_base.ModelType.FLUX, device=device, unet_model=QwenImage21Transformer2DModel)


SMALL = SmallModel("Qwen-Image 2.1, a stand-in", Config, {}, (16, 6, 6), (4, 32))


@pytest.fixture
def model():
    return build(SMALL)


def test_it_is_known(model):
    family = families.find_family(model.model.diffusion_model)
    assert (family.name, family.lacks) == ("Qwen-Image 2.1", ())


def test_interval_one_is_bit_equal(model):
    plain = sample(SMALL, model, cfg=3.0)
    model.model.diffusion_model.remembered.clear()
    assert torch.equal(sample(SMALL, accelerated(model, interval=1), cfg=3.0), plain)


def test_what_it_remembers_survives_forecast_steps_and_is_of_use(model, reports):
    network = model.model.diffusion_model
    with RunCounter(model) as runs:
        result = sample(SMALL, accelerated(model, femo_core.FeMo(1, gamma=0.05)), cfg=3.0, batch=2)
    full = femo_core.Schedule(3, 3).full_steps(12)
    assert (reports[0].full_steps, reports[0].settings["site"], reports[0].warnings) == (full, "hidden", ())
    assert runs.count == len(full)
    assert len(network.remembered) == 1  # by the first step, of both prompts; forecast steps left it alone
    assert all(len(row["beta"]) == 2 for row in reports[0].betas)
    assert torch.isfinite(result).all()
    assert leftovers(model) == []


@pytest.mark.parametrize("remembers", [True, False])
def test_replaying_is_the_full_step(model, remembers):
    """Whether the full step went over the text's tokens or not."""
    network = model.model.diffusion_model
    family, site = families.find_family(network), sites.SITES["hidden"]
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(2, 16, 6, 6, generator=generator), torch.randn(2, 4, 32, generator=generator)
    timestep, captured, embedders = torch.tensor([0.5, 0.5]), {}, sites.Embedders()
    with torch.inference_mode():
        if remembers:
            network(x, timestep, text, {})
        needless = site.needless(family)
        with site.recording(network, family, copies(captured)), embedders.noted(network, needless):
            recorded = network(x, timestep, text, {})
        assert captured["norm_out"].shape == (2, 36, WIDTH)
        with (site.substituting(network, family, {}, Replayed(captured)) as options,
              embedders.passed_by(network, needless)):
            assert torch.equal(network(x, timestep, text, options), recorded)
    assert len(network.remembered) == 1
