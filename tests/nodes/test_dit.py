"""DiT without ComfyUI: the network against diffusers', and what files are read."""

from __future__ import annotations

import argparse
import warnings

import pytest
import torch
from benchmarks.pack.dit.checkpoint import config_of, kind_of, weights_of
from benchmarks.pack.dit.model import DiT, DiTConfig, sine_positions

SMALL = DiTConfig(hidden=128, depth=2, heads=2, patch=2, in_channels=4, out_channels=8, classes=10, grid=8)


def random_dit(config: DiTConfig = SMALL) -> DiT:
    torch.manual_seed(0)
    model = DiT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def diffusers_names(weights: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """The original's weights under diffusers' names, written down from its documentation of the model."""
    result = {
        "pos_embed.proj.{}": "x_embedder.proj.{}", "proj_out_1.{}": "final_layer.adaLN_modulation.1.{}",
        "proj_out_2.{}": "final_layer.linear.{}",
    }
    for i in range(depth):
        block, embedders = f"transformer_blocks.{i}", f"transformer_blocks.{i}.norm1.emb"
        result |= {
            f"{block}.norm1.linear.{{}}": f"blocks.{i}.adaLN_modulation.1.{{}}",
            f"{block}.attn1.to_out.0.{{}}": f"blocks.{i}.attn.proj.{{}}",
            f"{block}.ff.net.0.proj.{{}}": f"blocks.{i}.mlp.fc1.{{}}",
            f"{block}.ff.net.2.{{}}": f"blocks.{i}.mlp.fc2.{{}}",
            f"{embedders}.timestep_embedder.linear_1.{{}}": "t_embedder.mlp.0.{}",
            f"{embedders}.timestep_embedder.linear_2.{{}}": "t_embedder.mlp.2.{}",
        }
    named = {new.format(k): weights[old.format(k)] for new, old in result.items() for k in ("weight", "bias")}
    for i in range(depth):
        table = f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"
        named[table] = weights["y_embedder.embedding_table.weight"]
        for kind in ("weight", "bias"):
            for part, value in zip("qkv", weights[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                named[f"transformer_blocks.{i}.attn1.to_{part}.{kind}"] = value
    return named


@pytest.fixture(scope="module")
def diffusers_dit():
    """diffusers' DiT with the weights of ours, and the original's frequencies.

    The original spaces its 128 frequencies by k/128, diffusers by k/127, also for the original's weights: a departure
    that shows (5.8 % of the output's norm at these random weights, below) and is not ours to copy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DiTTransformer2DModel

        model = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=64, in_channels=4, out_channels=8, num_layers=2, sample_size=16,
            patch_size=2, num_embeds_ada_norm=10, norm_eps=1e-6).eval()
    model.load_state_dict(diffusers_names(random_dit().state_dict(), 2), strict=True)
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return model


def test_it_equals_diffusers(diffusers_dit):
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 500, 999])
    labels = torch.tensor([0, 9, 10])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = diffusers_dit(x, timestep=t, class_labels=labels).sample
        ours = random_dit()(x, t, labels)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_stock_diffusers_departs_by_its_frequencies_alone(diffusers_dit):
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    t, labels = torch.tensor([3, 500, 999]), torch.tensor([0, 9, 10])
    embedders = [block.norm1.emb.time_proj for block in diffusers_dit.transformer_blocks]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for embedder in embedders:
            embedder.downscale_freq_shift = 1
        stock = diffusers_dit(x, timestep=t, class_labels=labels).sample
        for embedder in embedders:
            embedder.downscale_freq_shift = 0
        ours = random_dit()(x, t, labels)
    assert ((stock - ours).norm() / ours.norm()).item() == pytest.approx(0.058, rel=0.05)


def test_what_inference_left_in_the_cache_can_be_trained_on():
    model, arguments = random_dit(), (torch.randn(1, 4, 12, 12), torch.tensor([1]), torch.tensor([2]))
    with torch.inference_mode():
        model(*arguments)
    model.requires_grad_(True)
    model(*arguments).sum().backward()


def test_a_size_that_the_patch_does_not_divide():
    out = random_dit()(torch.randn(1, 4, 15, 9), torch.tensor([10]), torch.tensor([1]))
    assert out.shape == (1, 8, 15, 9)
    assert torch.isfinite(out).all()


def test_another_size_stretches_the_positions():
    native, double = (sine_positions(SMALL, side, side).unflatten(0, (side, side)) for side in (8, 16))
    torch.testing.assert_close(double[::2, ::2], native)


def test_replaced_blocks_take_the_place_of_their_own():
    model, seen = random_dit(), []

    def replacement(args, extra):
        seen.append(args["vec"].shape)
        return extra["original_block"](args)

    x, t, y = torch.randn(2, 4, 16, 16), torch.tensor([5, 6]), torch.tensor([1, 2])
    options = {"patches_replace": {"dit": {("double_block", 1): replacement}}}
    assert torch.equal(model(x, t, y, options), model(x, t, y))
    assert seen == [(2, 128)]


PUBLISHED = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize(("classes", "grid", "channels", "out"), [(1000, 32, 4, 8), (17, 64, 3, 3)])
def test_sizes_are_read_from_the_weights(size, patch, classes, grid, channels, out):
    hidden, depth, heads = PUBLISHED[size]
    config = DiTConfig(hidden, depth, heads, patch, channels, out, classes, grid // patch)
    with torch.device("meta"):
        weights = DiT(config).state_dict()
    assert config_of(weights_of(weights, "file")) == config


@pytest.mark.parametrize("content", [
    lambda weights: weights,
    lambda weights: {"model": {k: v * 0 for k, v in weights.items()}, "ema": weights, "opt": {"state": {}},
                     "args": argparse.Namespace(lr=1e-4)},
    lambda weights: {"model": weights},
    lambda weights: {f"module.{k}": v for k, v in weights.items()},
    lambda weights: {f"model.diffusion_model.{k}": v for k, v in weights.items()}
    | {"first_stage_model.decoder.up.weight": torch.zeros(1)},
], ids=["plain", "training", "model only", "data parallel", "saved by ComfyUI"])
def test_every_layout_gives_the_same_weights(content):
    weights = random_dit().state_dict()
    found = weights_of(content(weights), "file")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_diffusers_names_give_the_same_weights():
    weights = random_dit().state_dict()
    found = weights_of(diffusers_names(weights, 2), "file")
    assert found.keys() == weights.keys() - {"pos_embed"}  # diffusers computes it
    assert all(torch.equal(found[key], weights[key]) for key in found)
    config = config_of(found)
    assert config.grid is None
    x = torch.randn(1, 4, 16, 16)
    model = DiT(config)
    model.load_state_dict(found)
    torch.testing.assert_close(model(x, torch.tensor([7]), torch.tensor([1])),
                               random_dit()(x, torch.tensor([7]), torch.tensor([1])))


def without(weights, *parts):
    return {key: value for key, value in weights.items() if not any(part in key for part in parts)}


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: {}, "seems to be a file without any tensors"),
    (lambda w: {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "seems to be Flux or HunyuanVideo"),
    (lambda w: {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, "seems to be a U-Net"),
    (lambda w: {"first_stage_model.decoder.up.0.weight": torch.zeros(1)}, "seems to be a VAE"),
    (lambda w: {"lora_unet_blocks_0_attn_qkv.lora_up.weight": torch.zeros(1)}, "seems to be a LoRA"),
    (lambda w: {"text_model.encoder.layers.0.weight": torch.zeros(1)}, "seems to be a text encoder"),
    (lambda w: {"joint_blocks.0.x": torch.zeros(1)}, "seems to be Stable Diffusion 3"),
    (lambda w: {"blocks.0.attn.qkv.weight": torch.zeros(1)}, "seems to be another diffusion transformer"),
    (lambda w: {"something.else": torch.zeros(1)}, "something unknown: it has 1 tensors, such as something.else"),
    (lambda w: without(w, "blocks.1.mlp.fc2.bias"), "1 weights are missing, such as blocks.1.mlp.fc2.bias"),
    (lambda w: w | {"y_embedder.y_proj.fc1.weight": torch.zeros(1)}, "weights that DiT does not have.*PixArt"),
    (lambda w: w | {"blocks.0.attn.proj.bias": torch.zeros(3)}, r"blocks.0.attn.proj.bias has shape \(3,\)"),
    (lambda w: w | {"x_embedder.proj.weight": torch.zeros(100, 4, 2, 2)}, "a width of 100 channels is none of DiT's"),
])
def test_a_wrong_file_is_told_what_it_seems_to_be(change, words):
    with pytest.raises(ValueError, match=words) as error:
        weights_of(change(random_dit().state_dict()), "my.safetensors")
    assert str(error.value).startswith("my.safetensors")


def test_diffusers_embedders_that_differ_are_refused():
    weights = diffusers_names(random_dit().state_dict(), 2)
    weights["transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"] = torch.ones(128)
    with pytest.raises(ValueError, match="block 1 has an embedder of its own"):
        weights_of(weights, "file")


def test_every_kind_has_a_name():
    assert kind_of({"transformer_blocks.0.attn1.to_q.weight": 1}) == "another diffusion transformer of diffusers"
