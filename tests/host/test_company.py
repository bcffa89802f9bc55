"""What users put before, after and around a cache node: ComfyUI's own nodes, other packs' patches, kinds of weights.

docs/company.md says what is tried here.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools

import pytest
import torch
from comfy_host import RunCounter, accelerated, comfy, distance, femo_core, leftovers, run_module
from small_flux import build_flux, conditioning
from small_images import IMAGES
from small_models import available, build
from small_models import conditioning as conditioning_of
from small_models import sample as sample_small
from small_videos import VIDEOS

SMALL = {small.name: small for small in (*IMAGES, *VIDEOS)}
FLUX, SDXL = (dataclasses.replace(SMALL[name], latent=(channels, 8, 8))
              for name, channels in (("FLUX.1 dev", 16), ("SDXL", 4)))
WAN = SMALL["Wan 2.1 text to video"]
SITES = ("hidden", "module", "output")
STEPS = 8
FULL = femo_core.Schedule(3, 3).full_steps(STEPS)
sample = functools.partial(sample_small, steps=STEPS)


def run_node(extra, name, **inputs):
    """The first output of a node of ComfyUI's, of comfy_extras; skips where this ComfyUI does not have it.

    Inputs that only newer ones have are left out.
    """
    module = pytest.importorskip(f"comfy_extras.nodes_{extra}")
    if not hasattr(module, name):
        pytest.skip(f"no {name} here")
    node = getattr(module, name)
    execute = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    result = execute(**{key: value for key, value in inputs.items() if key in inspect.signature(execute).parameters})
    return (result.result if hasattr(result, "result") else result)[0]


@pytest.fixture(scope="module")
def models():
    return {small.name: build(small) for small in (FLUX, SDXL, WAN)}


def check(small, model, add, sites=("hidden", "output"), **settings):
    """With `add` before the cache node and after it: bit-equal at interval 1, alike at 3 (at the first of the sites),
    finite, nothing left."""
    with RunCounter(model) as full:
        plain = sample(small, add(model), **settings)
    for both in (add(accelerated(model, interval=1)), accelerated(add(model), interval=1)):  # takes nothing, anywhere
        assert torch.equal(sample(small, both, **settings), plain)
    for site in sites:
        with RunCounter(model) as runs:
            before = sample(small, add(accelerated(model, site=site)), **settings)
        assert runs.count == full.count // 2, site
        if site == sites[0]:
            assert torch.equal(before, sample(small, accelerated(add(model), site=site), **settings))
        assert torch.isfinite(before).all() or not torch.isfinite(plain).all()
        assert leftovers(model) == []
    return plain


# Nodes that change how guidance, noise levels or the network's inside work. Of 8 steps half are full.
PATCHES = {
    "Flux": {
        "ModelSamplingFlux": ("model_advanced", {"max_shift": 1.3, "base_shift": 0.6, "width": 512, "height": 768}),
        "ModelSamplingSD3": ("model_advanced", {"shift": 5.0}),
        "SkipLayerGuidanceDiTSimple": ("slg", {"start_percent": 0.0, "end_percent": 1.0, "double_layers": "1",
                                                   "single_layers": "0"}),
        "CFGZeroStar": ("cfg", {}),
        "CFGNorm": ("cfg", {"strength": 1.0}),
        "APG": ("apg", {"eta": 1.0, "norm_threshold": 5.0, "momentum": 0.5}),
        "TCFG": ("tcfg", {}),
        "Mahiro": ("mahiro", {}),
        "FreSca": ("fresca", {"scale_low": 1.0, "scale_high": 1.25, "freq_cutoff": 4}),
        "RenormCFG": ("lumina2", {"cfg_trunc": 100.0, "renorm_cfg": 1.0}),
        "EpsilonScaling": ("eps", {"scaling_factor": 1.005}),
        "TemporalScoreRescaling": ("eps", {"tsr_k": 0.95, "tsr_sigma": 1.0}),
        "NAGuidance": ("nag", {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5}),
        "ScaleROPE": ("rope", {"scale_x": 1.1, "shift_x": 0.0, "scale_y": 0.9, "shift_y": 0.0, "scale_t": 1.0,
                               "shift_t": 0.0}),
    },
    "SDXL": {
        "ModelSamplingDiscrete": ("model_advanced", {"sampling": "v_prediction", "zsnr": True}),
        "RescaleCFG": ("model_advanced", {"multiplier": 0.7}),
        "FreeU_V2": ("freelunch", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        "HyperTile": ("hypertile", {"tile_size": 256, "swap_size": 2, "max_depth": 0, "scale_depth": False}),
        "TomePatchModel": ("tomesd", {"ratio": 0.3}),
        "UNetSelfAttentionMultiply": ("attention_multiply", {"q": 1.1, "k": 0.9, "v": 1.0, "out": 1.0}),
        "PatchModelAddDownscale": ("model_downscale", {
            "block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0,
            "downscale_after_skip": True,
            "downscale_method": "bicubic", "upscale_method": "bicubic"}),
    },
}
RANDOM = {"HyperTile", "TomePatchModel"}  # draws anew on every run, so that no two runs are alike


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PATCHES for name in PATCHES[kind]])
def test_model_patches_of_the_hosts(models, kind, name):
    small = {"Flux": FLUX, "SDXL": SDXL}[kind]
    extra, inputs = PATCHES[kind][name]

    def add(model):
        return run_node(extra, name, model=model, **inputs)

    if name in RANDOM:
        assert torch.isfinite(sample(small, accelerated(add(models[small.name])), cfg=3.0)).all()
        return
    plain = check(small, models[small.name], add, cfg=3.0)
    assert not torch.equal(plain, sample(small, models[small.name], cfg=3.0))


@pytest.mark.parametrize(("extra", "name", "inputs"), [
    ("pag", "PerturbedAttentionGuidance", {"scale": 3.0}),
    ("sag", "SelfAttentionGuidance", {"scale": 0.5, "blur_sigma": 2.0}),
    ("perpneg", "PerpNeg", {"neg_scale": 1.0}),
])
def test_guidance_that_calls_the_network_once_more(models, extra, name, inputs, reports):
    """Each of the calls is a stream of its own, so that the third is forecast too."""
    if name == "PerpNeg":
        inputs = {**inputs, "empty_conditioning": conditioning_of(SDXL, 3)}
    model = models["SDXL"]
    plain = run_node(extra, name, model=model, **inputs)
    with RunCounter(model) as runs:
        full = sample(SDXL, plain, cfg=3.0)
    assert runs.count == 2 * STEPS
    for site in ("hidden", "output"):
        ours_first = run_node(extra, name, model=accelerated(model, site=site), **inputs)
        for both in (accelerated(plain, site=site), ours_first):
            with RunCounter(model) as runs:
                result = sample(SDXL, both, cfg=3.0)
            assert runs.count == STEPS
            assert reports[-1].full_steps == FULL
            assert torch.isfinite(result).all()
            assert distance(result, full) < 0.6
            assert leftovers(model) == []


@pytest.mark.parametrize("site", ["hidden", "output"])
@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "batched"])
def test_context_windows(models, site, schedule, reports):
    """Each window is a stream; windows that move about between steps are computed in full until they come again."""
    small = dataclasses.replace(WAN, latent=(16, 9, 8, 8))
    model = models[WAN.name]

    def windowed(model):
        return run_node("context_windows", "ContextWindowsManualNode", model=model, context_length=4, context_overlap=1,
                        context_schedule=schedule, context_stride=1, closed_loop=False, fuse_method="flat", dim=2,
                        freenoise=False)

    full = sample(small, windowed(model), cfg=2.0)
    assert torch.equal(sample(small, windowed(accelerated(model, interval=1, site=site)), cfg=2.0), full)
    result = sample(small, windowed(accelerated(model, site=site)), cfg=2.0)
    assert torch.isfinite(result).all()
    assert reports[-1].warnings == ()
    if schedule != "standard_uniform":
        assert reports[-1].full_steps == FULL
        assert reports[-1].network_runs_saved == reports[-1].network_runs
    assert leftovers(model) == []


# Patches of attention, as IP-Adapter and its kin make them

def attention_output_patch(model):
    model = model.clone()
    model.set_model_attn2_output_patch(lambda out, _options: out * 1.05)
    return model


def attention_replacement(model):
    model = model.clone()

    def replaced(q, k, v, options):
        own = comfy.ldm.modules.attention.optimized_attention(q, k, v, options["n_heads"])
        image = torch.linspace(-1, 1, k.shape[1] * k.shape[2], dtype=k.dtype).reshape(1, *k.shape[1:]).expand_as(k)
        return own + 0.1 * comfy.ldm.modules.attention.optimized_attention(q, image, image, options["n_heads"])

    for number in range(9):
        model.set_model_attn2_replace(replaced, "output", number)
    return model


def block_patch(model):
    """As the ControlNets that come as model patches do it: after a block something is added to the image."""
    model = model.clone()

    def after(args):
        block_patch.calls += 1
        return {**args, "img": args["img"] * 1.02}

    model.set_model_patch(after, "double_block")
    return model


block_patch.calls = 0


@pytest.mark.parametrize("add", [attention_output_patch, attention_replacement])
def test_attention_patches_of_a_unet(models, add):
    plain = check(SDXL, models["SDXL"], add, cfg=2.0)
    assert not torch.equal(plain, sample(SDXL, models["SDXL"], cfg=2.0))


def test_patches_after_blocks_run_on_full_steps_only():
    qwen = SMALL["Qwen-Image"]
    model = build(qwen)
    assert not torch.equal(check(qwen, model, block_patch), sample(qwen, model))
    for site in ("hidden", "output"):
        block_patch.calls = 0
        sample(qwen, block_patch(accelerated(model, site=site)))
        assert block_patch.calls == 3 * len(FULL), site  # of three blocks


# Weights

def lora(strength=1.0):
    def add(model):
        model = model.clone()
        generator = torch.Generator().manual_seed(4)
        key = "diffusion_model.double_blocks.1.img_mlp.0.weight"
        model.add_patches({key: ("diff", (0.2 * torch.randn(512, 128, generator=generator),))}, strength)
        return model
    return add


def test_loras(models):
    model = models[FLUX.name]
    plain = check(FLUX, model, lora(), SITES)
    assert not torch.equal(plain, sample(FLUX, model))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("ours", [0, 1])
def test_merged_models(models, site, ours, reports):
    """The cache node on either of the models that are merged, or after the merge. Only the first one's node counts."""
    model, other = models[FLUX.name], lora(3.0)(models[FLUX.name])

    def merged(*pair):
        return run_node("model_merging", "ModelMergeSimple", model1=pair[0], model2=pair[1], ratio=0.4)

    plain = sample(FLUX, merged(model, other))
    after = sample(FLUX, accelerated(merged(model, other), site=site))
    assert distance(after, plain) < 0.5
    pair = [model, other]
    pair[ours] = accelerated(pair[ours], site=site)
    before = sample(FLUX, merged(*pair))
    assert torch.equal(before, after if ours == 0 else plain)
    assert len(reports) == (2 if ours == 0 else 1)


def check_sites(plain, run, model, reports, near=0.5):
    """run(interval, site): bit-equal at interval 1, near at 3 at every site, on the schedule's steps."""
    assert torch.equal(run(1, "hidden"), plain)
    for site in SITES:
        result = run(3, site)
        assert torch.isfinite(result).all(), site
        assert distance(result, plain) < near, site
        assert reports[-1].full_steps == FULL, site
        assert leftovers(model) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_of_low_precision(dtype, reports):
    model = build(FLUX, dtype, computes_in=torch.bfloat16 if dtype.itemsize == 1 else None)
    assert model.model.diffusion_model.double_blocks[0].img_mlp[0].weight.dtype == dtype
    plain = sample(FLUX, model)
    assert torch.isfinite(plain).all()
    check_sites(plain, lambda interval, site: sample(FLUX, accelerated(model, interval=interval, site=site)), model,
                reports)


def test_weights_that_are_loaded_piece_by_piece(reports):
    """As under --lowvram: most layers fetch their weights, and apply their LoRAs, whenever they run."""
    model = lora()(build_flux())
    plain = sample(FLUX, lora()(build_flux()))
    model.load(torch.device("cpu"), lowvram_model_memory=1)
    low = [layer for layer in model.model.modules() if getattr(layer, "comfy_cast_weights", False)]
    assert low
    loaded = sample(FLUX, model)
    torch.testing.assert_close(loaded, plain, rtol=1e-4, atol=1e-4)
    check_sites(loaded, lambda interval, site: sample(FLUX, accelerated(model, interval=interval, site=site)), model,
                reports)


# Ways to sample

@pytest.mark.parametrize("denoise", [0.3, 0.6])
def test_image_to_image(models, denoise, reports):
    """The noise falls over the last part of the schedule only, in as many steps."""
    latent = torch.randn(1, *FLUX.latent, generator=torch.Generator().manual_seed(5))
    settings = {"latent": latent, "denoise": denoise}
    model = models[FLUX.name]
    plain = sample(FLUX, model, **settings)
    assert torch.equal(sample(FLUX, accelerated(model, interval=1), **settings), plain)
    for site in SITES:
        assert distance(sample(FLUX, accelerated(model, site=site), **settings), plain) < 0.3, site
        assert reports[-1].full_steps == FULL, site


def test_differential_diffusion(models):
    """Each part of the picture starts to change where its mask says so."""
    latent = torch.randn(1, *FLUX.latent, generator=torch.Generator().manual_seed(5))
    mask = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    settings = {"latent": latent, "noise_mask": mask, "denoise": 0.8}
    model = models[FLUX.name]

    def add(model):
        return run_node("differential_diffusion", "DifferentialDiffusion", model=model)

    plain = check(FLUX, model, add, **settings)
    assert not torch.equal(plain, sample(FLUX, model, **settings))


def test_two_samplers_with_different_settings_in_one_workflow(models, reports):
    """Two cache nodes on one loaded model, a second pass over the first one's picture."""
    base = models[FLUX.name]
    first, second = accelerated(base, interval=4), accelerated(base, femo_core.FeMo(1), interval=2, site="module")

    def workflow():
        half = sample(FLUX, first, last_step=6, force_full_denoise=False)
        return half, sample(FLUX, second, latent=half, denoise=0.6)

    half, whole = workflow()
    assert [report.settings["interval"] for report in reports] == [4, 2]
    assert [report.settings["site"] for report in reports] == ["hidden", "module"]
    again = workflow()
    assert torch.equal(again[0], half)
    assert torch.equal(again[1], whole)


@functools.cache
def second_model(name):
    return build(SMALL[name])


def guider_of(kind, model):
    positive, negative = conditioning(1), conditioning(2)
    if kind == "BasicGuider":
        return run_node("custom_sampler", kind, model=model, conditioning=positive)
    if kind == "CFGGuider":
        return run_node("custom_sampler", kind, model=model, positive=positive, negative=negative, cfg=3.0)
    if kind == "DualCFGGuider":
        return run_node("custom_sampler", kind, model=model, cond1=positive, cond2=conditioning(3), negative=negative,
                        cfg_conds=3.0, cfg_cond2_negative=2.0, style="regular")
    if kind == "PerpNegGuider":
        return run_node("perpneg", kind, model=model, positive=positive, negative=negative,
                        empty_conditioning=conditioning(3), cfg=3.0, neg_scale=1.0)
    other = second_model("FLUX.1 dev" if kind == "DualModelGuider" else "Chroma")
    return run_node("custom_sampler", "DualModelGuider", model=model, model_negative=other, positive=positive,
                    negative=negative, cfg=3.0)


@pytest.mark.parametrize("kind", [
    "BasicGuider", "CFGGuider", "DualCFGGuider", "PerpNegGuider", "DualModelGuider", "DualModelGuider, another family"])
def test_sampler_custom_advanced(models, kind, reports):
    def run(model):
        def node(name, **inputs):
            return run_node("custom_sampler", name, **inputs)

        with torch.inference_mode():
            return node(
                "SamplerCustomAdvanced", guider=guider_of(kind, model), noise=node("RandomNoise", noise_seed=1),
                sampler=node("KSamplerSelect", sampler_name="heun" if kind == "CFGGuider" else "euler"),
                sigmas=node("BasicScheduler", model=model, scheduler="beta", steps=STEPS, denoise=1.0),
                latent_image={"samples": torch.zeros(1, *FLUX.latent)})["samples"]

    model = models[FLUX.name]
    def cached(interval, site):
        result = run(accelerated(model, interval=interval, site=site))
        total = reports[-1].network_runs + reports[-1].network_runs_saved
        assert interval == 1 or reports[-1].network_runs < 0.6 * total
        return result

    check_sites(run(model), cached, model, reports, near=0.6)


def test_combined_and_concatenated_prompts(models, reports):
    """ConditioningCombine samples with both, each a stream; ConditioningConcat makes one longer prompt."""
    one, two = conditioning(1), conditioning(3)
    longer = [[torch.cat([one[0][0], two[0][0]], 1), one[0][1]]]
    model = models[FLUX.name]
    for prompt in (one + two, longer):
        plain = sample(FLUX, model, positive=prompt, cfg=2.0)
        result = sample(FLUX, accelerated(model), positive=prompt, cfg=2.0)
        assert distance(result, plain) < 0.5
        assert reports[-1].full_steps == FULL


def test_tiles_one_after_the_other_in_one_queue(models):
    """Tiled upscaling: image to image over and over on one patched model, the last tiles of another size."""
    model = accelerated(models[FLUX.name], interval=2)
    picture = torch.randn(1, 16, 24, 40, generator=torch.Generator().manual_seed(6))
    tiles = [(slice(y, y + 16), slice(x, x + 16)) for y, x in itertools.product((0, 16), (0, 16, 32))]
    results = []
    for _again in range(2):
        for y, x in tiles:
            tile = picture[:, :, y, x]
            small = dataclasses.replace(FLUX, latent=tuple(tile.shape[1:]))
            results.append(sample(small, model, latent=tile, denoise=0.3, steps=8))
    for first, second in zip(results[:6], results[6:], strict=True):
        assert torch.equal(first, second)


def test_previews_are_of_every_step(models):
    def run(model):
        seen = []
        sample(FLUX, model, callback=lambda step, x0, x, total: seen.append((step, x0.clone(), total)))
        return seen

    plain, ours = run(models[FLUX.name]), run(accelerated(models[FLUX.name]))
    assert [(step, total) for step, _, total in ours] == [(step, STEPS) for step in range(STEPS)]
    assert torch.equal(ours[2][1], plain[2][1])
    assert all(torch.isfinite(x0).all() for _, x0, _ in ours)


@pytest.mark.parametrize("site", ["hidden", "module", "output"])
def test_a_cache_of_keys_that_shortens_the_image_after_the_first_step(site, reports):
    """FluxKVCache takes reference images out of the network after the first step: recorded features no longer fit.

    It also gives them a timestep of their own.
    """
    klein = next(small for small in IMAGES if small.name.startswith("FLUX.2 Klein"))
    if not available(klein):
        pytest.skip("no FLUX.2 here")
    model = build(klein)

    def add(model):
        return run_node("flux", "FluxKVCache", model=model)

    plain = sample(klein, add(model))
    assert torch.equal(sample(klein, add(accelerated(model, interval=1, site=site))), plain)
    result = sample(klein, add(accelerated(model, site=site)))
    assert torch.isfinite(result).all()
    assert reports[-1].network_runs_saved > 0


# Other kinds of layers

class Quantised(comfy.ops.manual_cast):
    """Layers whose weights are packed numbers, unpacked whenever they run: what GGUF loaders bring."""

    class Linear(comfy.ops.manual_cast.Linear):
        def forward(self, x):
            if not hasattr(self, "packed"):
                self.scale = self.weight.abs().amax(dim=1, keepdim=True) / 127
                self.packed = (self.weight / self.scale).round().to(torch.int8)
            return torch.nn.functional.linear(x, self.packed.to(x.dtype) * self.scale, self.bias)


def test_layers_of_another_packs(reports):
    model = build(FLUX, operations=Quantised)
    assert type(model.model.diffusion_model.double_blocks[0].img_mlp[0]).__qualname__ == "Quantised.Linear"
    plain = sample(FLUX, model)
    check_sites(plain, lambda interval, site: sample(FLUX, accelerated(model, interval=interval, site=site)), model,
                reports)
    assert run_module.find_family(model.model.diffusion_model).name == "Flux"


def test_a_head_of_another_packs_under_another_name(reports):
    """The class's name is all that it has in common with what is known of it."""
    model = build(FLUX)
    plain, network = sample(FLUX, model), model.model.diffusion_model
    network.last = network._modules.pop("final_layer")
    network.__dict__["final_layer"] = lambda *args, **named: network.last(*args, **named)
    assert torch.equal(sample(FLUX, accelerated(model, interval=1)), plain)
    for site in SITES:
        assert distance(sample(FLUX, accelerated(model, site=site)), plain) < 0.5, site
        assert (reports[-1].full_steps, reports[-1].settings["site"]) == (FULL, "output")
        assert len(reports[-1].warnings) == (site != "output")
        assert all("this Flux has no final_layer" in warning for warning in reports[-1].warnings)
