"""The tiny Flux and the demo, in small."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import demo
from benchmarks.models import drawings
from benchmarks.models.flux_model import Flux, FluxConfig
from benchmarks.models.tiny_flux import CHECKPOINTS, Codec, encode_prompts, shifted_sigmas
from benchmarks.sampling.forecasting import count_flops, sample
from benchmarks.sampling.metrics import psnr
from benchmarks.sampling.subjects import Job, TinyFlux
from femo_core import FeMo, Schedule, TaylorSeer

JOB = Job(("red house day", "green tree paper", "yellow star night"), seed=3)


@pytest.fixture(scope="module")
def model():
    return TinyFlux()


@pytest.fixture(scope="module")
def full(model):
    return sample(model, JOB, 50, TaylorSeer(1), Schedule(1))


def test_the_checkpoint_is_small_and_its_report_good_enough():
    assert (CHECKPOINTS / "tiny_flux.safetensors").stat().st_size <= 8e6
    report = json.loads((CHECKPOINTS / "tiny_flux.json").read_text())
    assert report["minutes"] < 60
    assert report["sample_thing_accuracy"] >= 0.9
    assert report["sample_colour_accuracy"] >= 0.9


def test_its_keys_are_fluxs():
    keys = set(Flux(FluxConfig()).state_dict())
    assert {
        "img_in.weight", "txt_in.bias", "time_in.in_layer.weight", "vector_in.out_layer.bias",
        "guidance_in.in_layer.weight", "double_blocks.0.img_mod.lin.weight", "double_blocks.0.txt_attn.qkv.bias",
        "double_blocks.1.img_attn.norm.key_norm.scale", "double_blocks.0.img_mlp.2.weight",
        "single_blocks.5.linear1.weight", "single_blocks.0.modulation.lin.bias", "final_layer.linear.weight",
        "final_layer.adaLN_modulation.1.weight",
    } <= keys


def test_the_full_run_draws_what_it_was_told(model, full):
    """Red house on a light blue ground: the corners are background, red is in the middle."""
    latent, _ = full
    red, green, blue = (model.pixels(latent)[0, :, 2, 2] + 1) * 127.5
    day = torch.tensor(drawings.BACKGROUNDS["day"], dtype=torch.float32)
    assert (torch.stack((red, green, blue)) - day).abs().max() < 30
    centre = model.pixels(latent)[0, :, 24:48, 20:44].mean((1, 2))
    assert centre[0] > centre[1] + 0.2
    assert centre[0] > centre[2] + 0.2


def test_the_codec_keeps_a_drawing():
    image, _ = drawings.draw_many(8, seed=9)
    original = torch.from_numpy(image).movedim(-1, 1).float() / 127.5 - 1
    codec = Codec.load()
    assert psnr(codec.decode(codec.encode(original)), original) > 28


@pytest.fixture(scope="module")
def reused(model, full):
    """PSNR of reuse."""
    latent, _ = sample(model, JOB, 50, TaylorSeer(0), Schedule(4, 3, 1))
    return psnr(model.pixels(latent), model.pixels(full[0]))


@pytest.mark.parametrize("predictor", [TaylorSeer(1), TaylorSeer(2), FeMo(1), FeMo(1, gamma=0.015)])
def test_a_forecast_run_skips_what_it_should_and_is_close(model, full, reused, predictor):
    latent, report = sample(model, JOB, 50, predictor, Schedule(4, 3, 1))
    assert (report.network_runs, report.network_runs_saved) == (15, 35)
    assert psnr(model.pixels(latent), model.pixels(full[0])) > reused > 10


def test_interval_one_is_bit_equal(model, full):
    latent, report = sample(model, JOB, 50, FeMo(2), Schedule(1))
    assert torch.equal(latent, full[0])
    assert report.reason == "interval is 1"


def test_a_predicted_step_costs_next_to_nothing_of_a_full_one(model):
    full, predicted = count_flops(model, JOB)
    assert predicted < 0.02 * full


def test_the_noise_levels_are_comfyuis():
    levels = shifted_sigmas(50)
    assert (levels[0], levels[-1], len(levels)) == (pytest.approx(1.0), 0.0, 51)
    assert levels == sorted(levels, reverse=True)


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="unknown word 'dragon'"):
        encode_prompts(["red dragon day"])


def test_the_demo_writes_its_table_and_pictures(tmp_path, monkeypatch, capsys):
    page = tmp_path / "measured.md"
    page.write_text("before\n<!-- demo -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(demo, "PROMPTS", JOB.prompts)
    monkeypatch.setattr(demo, "MEASURED", page)
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    out = tmp_path / "demo"
    monkeypatch.setattr("sys.argv", ["demo.py", "--steps", "12", "--speedups", "2", "--out", str(out), "--pages"])
    demo.main()
    printed = capsys.readouterr().out
    rows = [line.split(" | ")[:2] for line in printed.splitlines() if line.startswith("| ")]
    assert rows[2:5] == [["| full run", "12 of 12"], ["| FeMo Auto", "6 of 12"], ["| 6 plain steps", "6 of 6"]]
    assert {name.partition(",")[0] for name, _ in rows[5:]} == {"| TaylorSeer", "| FeMo", "| Adapted-FeMo"}
    assert {path.name for path in out.iterdir()} == {"short.png", "contact_sheet.png", "betas.png", "table.md"}
    assert {path.name for path in tmp_path.glob("*.png")} == {"demo.png", "demo_short.png", "demo_betas.png"}
    kept = ["|".join(row.split("|")[:4] + row.split("|")[5:]) for row in (out / "table.md").read_text().splitlines()]
    assert page.read_text().splitlines() == ["before", "<!-- demo -->", *kept, "<!-- end -->", "after"]  # without times
