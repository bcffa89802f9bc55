"""DiT as a ComfyUI MODEL: loading, KSampler, guidance, batches, LoRA, dtypes, and forecasting at every site."""

from __future__ import annotations

import sys

import pytest
import torch
from comfy_host import PACK, RunCounter, accelerated, comfy, leftovers
from comfy_host import dit_host as host
from comfy_host import dit_model as model_module
from safetensors.torch import save_file
from small_images import DIT

import femo_core as core

label_node = sys.modules[f"{PACK}.nodes.dit_class_label"]
loader_node = sys.modules[f"{PACK}.nodes.dit_loader"]

SMALL = model_module.DiTConfig(**DIT)
SITES = ("hidden", "module", "output")


def label(*indices: int):
    """What a DiT Class Label node gives."""
    return label_node.DiTClassLabel.execute("(by index)", ", ".join(map(str, indices))).result[0]


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    model = model_module.DiT(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("dit") / "small.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def model(path):
    return host.load_dit(path, torch.float32)


def sample(model, *, steps=10, sampler="ddim", scheduler="ddim_uniform", cfg=2.0, size=16, batch=1, labels=(7,),
           seed=1, denoise=1.0, channels=4, noise=None, **ksampler):
    if noise is None:
        noise = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, label(*labels), label(), torch.zeros_like(noise),
            denoise=denoise, disable_pbar=True, seed=seed, **ksampler)


def network(model):
    return model.model.diffusion_model


# Loading

@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_files_are_loaded(ending, weights, model, tmp_path):
    path = tmp_path / f"file.{ending}"
    if ending == "pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    loaded = network(host.load_dit(path, torch.float32)).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert loaded.keys() == weights.keys()


def test_a_training_checkpoint_with_its_command_line(weights, tmp_path):
    import argparse

    torch.save({"model": {k: 0 * v for k, v in weights.items()}, "ema": weights, "opt": {"lr": 1.0},
                "args": argparse.Namespace(lr=1)}, tmp_path / "0001.pt")
    loaded = network(host.load_dit(tmp_path / "0001.pt", torch.float32)).state_dict()
    assert torch.equal(loaded["blocks.1.mlp.fc1.weight"], weights["blocks.1.mlp.fc1.weight"])


class Malicious:
    def __reduce__(self):
        return (sys.modules[__name__].mark, ())


ran = []


def mark():
    ran.append("code from the file")
    return {}


def test_a_pickle_that_brings_code_is_refused_and_not_run(weights, tmp_path):
    torch.save({**weights, "extra": Malicious()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt holds more than tensors.*save its weights as .safetensors"):
        host.load_dit(tmp_path / "evil.pt")
    assert not ran


def test_a_wrong_file_says_what_it_seems_to_be(tmp_path):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, tmp_path / "flux.safetensors")
    with pytest.raises(ValueError, match=r"flux.safetensors is not a DiT checkpoint. It seems to be Flux"):
        host.load_dit(tmp_path / "flux.safetensors")


def test_the_loader_finds_files_in_both_folders_and_its_own(path, tmp_path, monkeypatch):
    import folder_paths

    for folder in ("diffusion_models", "checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.safetensors").write_bytes(path.read_bytes())
        folder_paths.add_model_folder_path(folder, str(tmp_path / folder))
    kind, options = loader_node.DiTLoader.INPUT_TYPES()["required"]["model_name"]
    listed = options.get("options") or kind
    assert {"diffusion_models.safetensors", "checkpoints.safetensors", "tiny_dit.safetensors"} <= set(listed)
    for name in ("diffusion_models.safetensors", "checkpoints.safetensors"):
        assert network(loader_node.DiTLoader.execute(name, "fp32").result[0]).config == SMALL
    assert network(loader_node.DiTLoader.execute("tiny_dit.safetensors", "default").result[0]).config.classes == 80
    with pytest.raises(ValueError, match=r"model_name 'absent.pt' is in neither"):
        loader_node.DiTLoader.execute("absent.pt", "default")


# Labels

def test_labels_stay_integers_and_an_empty_one_is_the_null_class(model):
    seen = []
    handle = network(model).y_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    sample(model, steps=1, labels=(999,))
    handle.remove()
    assert seen[-1].dtype == torch.int64
    assert sorted(torch.cat(seen[-2:]).unique().tolist()) == [999, 1000]


def host_in(model, dtype):
    """The same weights, held and computed in another dtype."""
    weights = {name: value.clone() for name, value in network(model).state_dict().items()}
    config = host.DiTModelConfig(SMALL)
    config.set_inference_dtype(dtype, None)
    made = config.get_model({})
    made.load_model_weights(weights, "")
    return comfy.model_patcher.ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))


def test_999_in_bfloat16_is_not_the_null_class(model):
    low, seen = host_in(model, torch.bfloat16), []
    handle = network(low).y_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    sample(low, steps=1, labels=(999,))
    handle.remove()
    assert sorted(torch.cat(seen).tolist()) == [999, 1000]


def test_a_batch_gets_one_label_each(model):
    together = sample(model, batch=3, labels=(3, 5), cfg=1.0)
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    for i, index in enumerate((3, 5, 3)):
        alone = sample(model, noise=noise[i : i + 1], labels=(index,), cfg=1.0)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-3)
    assert (together[0] - together[1]).norm() > 0.01


@pytest.mark.parametrize(("name", "index", "labels"), [
    ("(by index)", "", [-1]), ("(by index)", "7", [7]), ("207 golden retriever", "", [207]),
    ("207 golden retriever", "1, 2 ,3", [1, 2, 3]), ("0 tench, Tinca tinca", "", [0])])
def test_the_label_node(name, index, labels):
    ((embedding, options),) = label_node.DiTClassLabel.execute(name, index).result[0]
    assert options["class_labels"].tolist() == labels
    assert embedding.shape == (1, 1, 1)


def test_the_thousand_names():
    names = label_node.class_names()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[134], names[517]) == ("0 tench, Tinca tinca", "134 crane", "517 crane")
    assert names[207] == "207 golden retriever"
    assert names[-1].startswith("999 toilet tissue")


@pytest.mark.parametrize("index", ["cat", "-1", "1.5", "1;2"])
def test_an_index_that_is_no_number_is_refused(index):
    with pytest.raises(ValueError, match="class_index must be whole numbers from 0 up"):
        label_node.DiTClassLabel.execute("(by index)", index)


def test_an_index_that_the_model_does_not_have_is_refused(model):
    with pytest.raises(ValueError, match="class_index must be 0 to 999 for this model, which has 1000 cl"):
        sample(model, labels=(1000,))


def test_a_text_prompt_is_refused(model):
    noise = torch.zeros(1, 4, 16, 16)
    prompt = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="Connect a 'DiT Class Label' node"):
        comfy.sample.sample(model, noise, 2, 1.0, "ddim", "normal", prompt, prompt, noise, disable_pbar=True, seed=0)


# Sampling

@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(model, sampler):
    """Runs. (That interval 1 changes nothing under any of them: test_samplers.py.)"""
    plain = sample(model, steps=4, sampler=sampler, scheduler="normal")
    assert torch.isfinite(plain).all()
    forecast = sample(accelerated(model, interval=2, warmup=2), steps=8, sampler=sampler, scheduler="normal")
    assert torch.isfinite(forecast).all()


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler(model, scheduler):
    assert torch.isfinite(sample(accelerated(model), steps=8, sampler="euler", scheduler=scheduler)).all()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_forecasting_runs_the_network_on_full_steps_only(model, site, cfg):
    plain = sample(model, steps=20, cfg=cfg, batch=2, labels=(1, 2))
    assert torch.equal(sample(accelerated(model, interval=1, site=site), steps=20, cfg=cfg, batch=2, labels=(1, 2)),
                       plain)
    with RunCounter(model) as runs:
        forecast = sample(accelerated(model, interval=3, warmup=2, site=site), steps=20, cfg=cfg, batch=2,
                          labels=(1, 2))
    assert runs.count == len(core.Schedule(3, 2).full_steps(20))
    assert torch.isfinite(forecast).all()
    assert not torch.equal(forecast, plain)
    assert not leftovers(model)


def test_module_features_are_attn_and_mlp_of_each_block(model):
    sites, families = (sys.modules[f"{PACK}.nodes.{name}"] for name in ("sites", "families"))
    family = families.find_family(network(model))
    assert family.name == "DiT"
    assert sites.SITES["module"].features(network(model), family) == tuple(
        f"blocks.{i}.{part}" for i in range(3) for part in ("attn", "mlp"))


@pytest.mark.parametrize("site", SITES)
def test_a_forecast_of_constant_features_is_the_network_itself(path, site):
    """Without timestep or class in the modulations, and steps that don't move, features repeat: replay is exact."""
    model = host.load_dit(path, torch.float32)
    with torch.no_grad():
        for name, value in network(model).named_parameters():
            if "embedder" in name:
                value.zero_()
    plain, forecast = (sample(m, steps=12, cfg=1.0) for m in (model, accelerated(model, site=site, interval=4)))
    torch.testing.assert_close(forecast, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2"])
def test_dtypes(path, dtype, model):
    low = host.load_dit(path, host.DTYPES[dtype])
    assert network(low).blocks[0].mlp.fc1.weight.dtype == host.DTYPES[dtype]
    plain, exact = sample(low), sample(model)
    assert torch.isfinite(plain).all()
    assert (plain - exact).norm() < {"fp8_e4m3fn": 0.3, "fp8_e5m2": 0.5}.get(dtype, 0.05) * exact.norm()
    assert torch.isfinite(sample(accelerated(low, site="module"))).all()


def test_ksampler_advanced_ranges(model):
    """Two ranges make one run, as with any model."""
    whole = sample(model, steps=10)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))

    def part(model, latent, noise, **options):
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 10, 2.0, "ddim", "ddim_uniform", label(7), label(), latent, disable_pbar=True, seed=1,
                **options)

    for patched in (model, accelerated(model, interval=1)):
        first = part(patched, torch.zeros_like(noise), noise, last_step=6, force_full_denoise=False)
        second = part(patched, first, torch.zeros_like(noise), start_step=6, disable_noise=True)
        torch.testing.assert_close(second, whole, rtol=1e-3, atol=1e-3)
    patched = accelerated(model, interval=2, warmup=2)
    first = part(patched, torch.zeros_like(noise), noise, last_step=6, force_full_denoise=False)
    assert torch.isfinite(part(patched, first, torch.zeros_like(noise), start_step=6, disable_noise=True)).all()


def test_loras_are_applied(model):
    import comfy.lora
    import comfy.sd

    key = "blocks.1.attn.qkv"
    assert f"diffusion_model.{key}" in comfy.lora.model_lora_keys_unet(model.model, {})
    generator = torch.Generator().manual_seed(0)
    lora = {
        f"diffusion_model.{key}.lora_up.weight": torch.randn(384, 2, generator=generator),
        f"diffusion_model.{key}.lora_down.weight": torch.randn(2, 128, generator=generator),
    }
    changed, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    assert (sample(changed) - sample(model)).norm() > 0.01
    assert torch.isfinite(sample(accelerated(changed, site="module"))).all()


def test_sd_vae_latents_decode(model):
    """A 4-channel DiT's latents are Stable Diffusion's: its VAE, of random weights here, takes them."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
              "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    torch.manual_seed(0)
    weights = {name: 0.02 * torch.randn(value.shape)
               for name, value in AutoencoderKL(embed_dim=4, ddconfig=config).state_dict().items()}
    vae = comfy.sd.VAE(sd=weights)
    assert model.model.latent_format.scale_factor == 0.18215
    with torch.inference_mode():
        image = vae.decode(sample(model, size=8, batch=2))
    assert image.shape == (2, 64, 64, 3)
    assert torch.isfinite(image).all()
