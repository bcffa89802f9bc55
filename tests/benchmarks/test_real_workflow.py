"""`make real` without a server: what it finds in a workflow, and the page. With one: host/test_real_weights.py."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.real import real_inputs, real_metrics, real_page, real_run
from benchmarks.real.real_workflow import (
    Method,
    WorkflowError,
    defaults,
    find,
    load,
    missing_files,
    with_method,
    without_caches,
)
from femo_core import presets


def node(outputs=(), **inputs):
    """As /object_info has it; a type in lower case is a number or a text."""
    kinds = {name: kind if isinstance(kind, list) else [kind, {}] for name, kind in inputs.items()}
    return {"input": {"required": kinds}, "output": list(outputs)}


SAMPLER = {"positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"}
INFO = {
    "UNETLoader": node(["MODEL"], unet_name=[["a.safetensors"], {}]),
    "ModelSamplingFlux": node(["MODEL"], model="MODEL"),
    "CLIPTextEncode": node(["CONDITIONING"], text="STRING", clip="CLIP"),
    "FluxGuidance": node(["CONDITIONING"], conditioning="CONDITIONING"),
    "EmptyLatentImage": node(["LATENT"], width="INT"),
    "KSampler": node(["LATENT"], model="MODEL", seed="INT", steps="INT", **SAMPLER),
    "KSamplerAdvanced": node(["LATENT"], model="MODEL", noise_seed="INT", steps="INT", start_at_step="INT",
                             end_at_step="INT", **SAMPLER),
    "SamplerCustomAdvanced": node(["LATENT", "LATENT"], noise="NOISE", guider="GUIDER", sigmas="SIGMAS",
                                  latent_image="LATENT"),
    "CFGGuider": node(["GUIDER"], model="MODEL", positive="CONDITIONING", negative="CONDITIONING"),
    "BasicScheduler": node(["SIGMAS"], model="MODEL", steps="INT"),
    "SplitSigmas": node(["SIGMAS", "SIGMAS"], sigmas="SIGMAS", step="INT"),
    "RandomNoise": node(["NOISE"], noise_seed="INT"),
    "PrimitiveInt": node(["INT"], value="INT"),
    "VAEDecode": node(["IMAGE"], samples="LATENT"),
    "SaveImage": node([], images="IMAGE"),
    "PreviewImage": node([], images="IMAGE"),
    "EasyCache": node(["MODEL"], model="MODEL", reuse_threshold=["FLOAT", {"default": 0.2}]),
    "FeMoCache": node(["MODEL"], model="MODEL", interval=["INT", {"default": 0}],
                      site=["COMBO", {"options": ["hidden", "module"], "default": "hidden"}]),
}


def of(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def simple():
    return {
        "1": of("UNETLoader", unet_name="a.safetensors"), "2": of("FeMoCache", model=["1", 0], interval=3),
        "3": of("CLIPTextEncode", text="old", clip=["9", 0]), "4": of("FluxGuidance", conditioning=["3", 0]),
        "5": of("CLIPTextEncode", text="bad", clip=["9", 0]), "6": of("EmptyLatentImage", width=64),
        "7": of("KSampler", model=["2", 0], positive=["4", 0], negative=["5", 0], latent_image=["6", 0], seed=1,
                steps=20),
        "8": of("VAEDecode", samples=["7", 0]), "10": of("SaveImage", images=["8", 0])}


def test_everything_is_found_by_its_links():
    found = find(simple(), INFO)
    assert found.samplers == ("7",)
    assert found.models == (("7", "model"),)
    assert (found.steps, found.seeds, found.texts) == ((("7", "steps"),), (("7", "seed"),), (("3", "text"),))
    assert found.total_steps == 20
    assert "2" not in found.prompt  # the cache, and what needs it is linked to what it was given
    assert found.prompt["7"]["inputs"]["model"] == ["1", 0]
    assert "10" not in found.prompt  # nothing is saved in the output folder
    assert found.prompt["femo_picture"] == of("PreviewImage", images=["8", 0])


def test_a_method_is_put_before_the_sampler():
    sampling, method = find(simple(), INFO), Method("x", "FeMoCache", {"interval": 6})
    prompt = with_method(sampling, method, "new", 5, INFO)
    assert prompt["7"]["inputs"] | {"positive": 0, "negative": 0, "latent_image": 0} == {
        "model": ["femo_cache_0", 0], "seed": 5, "steps": 20, "positive": 0, "negative": 0, "latent_image": 0}
    assert prompt["femo_cache_0"] == of("FeMoCache", model=["1", 0], interval=6, site="hidden")
    assert prompt["3"]["inputs"]["text"] == "new"
    assert prompt["5"]["inputs"]["text"] == "bad"
    assert sampling.prompt["7"]["inputs"]["seed"] == 1  # which stays as it was


@pytest.mark.parametrize(("steps", "fewer", "wanted"), [(0, 3, 7), (50, 1, 50), (50, 6, 9), (0, 30, 1)])
def test_steps(steps, fewer, wanted):
    found = with_method(find(simple(), INFO), Method("x", fewer=fewer), "", 0, INFO, steps)
    assert found["7"]["inputs"]["steps"] == wanted


def test_two_experts_are_one_run_and_share_its_steps():
    prompt = simple()
    shared = {"positive": ["4", 0], "negative": ["5", 0], "steps": 20}
    prompt |= {"11": of("UNETLoader", unet_name="a.safetensors"),
               "7": of("KSamplerAdvanced", model=["1", 0], latent_image=["6", 0], noise_seed=1, start_at_step=0,
                       end_at_step=10, **shared),
               "12": of("KSamplerAdvanced", model=["11", 0], latent_image=["7", 0], noise_seed=1, start_at_step=10,
                        end_at_step=10000, **shared)}
    prompt["8"]["inputs"]["samples"] = ["12", 0]
    found = find(prompt, INFO)
    assert found.samplers == ("7", "12")
    changed = with_method(found, Method("x", "EasyCache", fewer=2), "", 3, INFO)
    inputs = [changed[each]["inputs"] for each in ("7", "12")]
    assert [[one[name] for name in ("steps", "start_at_step", "end_at_step", "noise_seed")] for one in inputs] == [
        [10, 0, 5, 3], [10, 5, 10000, 3]]
    assert [one["model"] for one in inputs] == [["femo_cache_0", 0], ["femo_cache_1", 0]]


def test_a_custom_sampler_in_a_subgraph():
    """As the front end writes it for the API: ids with a colon, and values from nodes of their own."""
    prompt = simple()
    prompt |= {
        "7": of("SamplerCustomAdvanced", noise=["20:1", 0], guider=["20:2", 0], sigmas=["20:4", 1],
                latent_image=["6", 0]),
        "20:1": of("RandomNoise", noise_seed=["20:5", 0]),
        "20:2": of("CFGGuider", model=["2", 0], positive=["4", 0], negative=["5", 0]),
        "20:3": of("BasicScheduler", model=["2", 0], steps=["20:6", 0]),
        "20:4": of("SplitSigmas", sigmas=["20:3", 0], step=4),
        "20:5": of("PrimitiveInt", value=1), "20:6": of("PrimitiveInt", value=20)}
    found = find(prompt, INFO)
    assert found.models == (("20:2", "model"),)
    assert (found.steps, found.parts) == ((("20:6", "value"),), (("20:4", "step"),))
    assert (found.seeds, found.texts) == ((("20:5", "value"),), (("3", "text"),))
    changed = with_method(found, Method("x", "EasyCache", fewer=2), "", 7, INFO)
    assert changed["20:2"]["inputs"]["model"] == ["femo_cache_0", 0]
    assert changed["20:3"]["inputs"]["model"] == ["1", 0]  # noise levels need no cache
    assert (changed["20:6"]["inputs"]["value"], changed["20:4"]["inputs"]["step"]) == (10, 2)


def test_where_steps_are_set_may_stay_unknown():
    prompt = simple()
    prompt["7"]["inputs"]["steps"] = ["1", 0]
    found = find(prompt, INFO)
    assert found.total_steps == 0
    assert with_method(found, Method("x"), "", 0, INFO)["7"]["inputs"]["steps"] == ["1", 0]
    assert not [method for method in real_inputs.methods_for(found, INFO) if "fewer" in method.name]


def test_a_loop_is_a_clear_error():
    prompt = simple()
    prompt["1"] = of("ModelSamplingFlux", model=["1", 0])
    with pytest.raises(WorkflowError, match=r"node 1 .*depends on itself"):
        find(prompt, INFO)


def test_a_chain_of_caches_is_taken_out_whole():
    prompt = {"1": of("UNETLoader"), "2": of("FeMoCache", model=["1", 0]), "3": of("EasyCache", model=["2", 0]),
              "4": of("KSampler", model=["3", 0])}
    assert without_caches(prompt) == {"1": of("UNETLoader"), "4": of("KSampler", model=["1", 0])}


@pytest.mark.parametrize("path", real_inputs.OURS, ids=lambda path: path.stem)
def test_our_workflows_are_in_api_format_and_say_what_they_need(path):
    prompt = load(path)
    assert missing_files(prompt, {})
    links = [value for one in prompt.values() for value in one["inputs"].values() if isinstance(value, list)]
    assert all(str(link[0]) in prompt for link in links)


def test_methods_are_the_papers():
    sampling = find(simple(), INFO)
    found = {method.name: method for method in real_inputs.methods_for(sampling, INFO)}
    adapted = found["Adapted-FeMo O=1, N=6"].inputs
    assert adapted["gamma"] == presets.PAPERS["Adapted-FeMo, FLUX, O=1"].predictor.gamma
    assert [adapted[name] for name in ("interval", "warmup_steps", "cooldown_steps", "site")] == [6, 3, 0, "module"]
    assert [*found][:6] == ["full", *(f"fewer steps, {n}×" for n in (2, 3, 5, 6)), "EasyCache"]
    assert not any("Auto" in name for name in found)
    auto = {**INFO, "FeMoAuto": node(["MODEL"], model="MODEL")}
    found = [method for method in real_inputs.methods_for(sampling, auto) if method.node == "FeMoAuto"]
    assert [method.inputs["speedup"] for method in found] == [2.0, 3.0, 5.0, 6.0]


def test_every_row_of_the_papers_is_one_that_is_measured():
    info = {**INFO, "DiTClassLabel": node(["CONDITIONING"], class_name="STRING", class_index="STRING")}
    dit = simple() | {"4": of("DiTClassLabel", class_name="", class_index="3")}
    measured = {"FLUX.1-dev": simple(), "DiT-XL/2": dit}
    for row in real_page.PAPERS:
        names = [method.name for method in real_inputs.methods_for(find(measured[row["model"]], info), info)]
        assert row["method"] in names


def test_the_prompts_are_200_in_drawbenchs_categories():
    path = real_inputs.DATA / "prompts.txt"
    prompts = real_inputs.read_prompts(path)
    assert len(prompts) == len({*prompts}) == 200
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(Counter(line.split("\t")[0] for line in lines)) == 11


def test_defaults_of_a_nodes_inputs():
    assert defaults(node(model="MODEL", old=[["a", "b"], {}], new=["COMBO", {"options": ["c"], "default": "c"}],
                         number=["INT", {"default": 4}])) == {"old": "a", "new": "c", "number": 4}


def test_the_samplers_time_is_from_its_message_to_the_next_nodes():
    told = [{"type": "executing", "data": {"node": name}, "at": at}
            for name, at in (("1", 1.0), ("7", 2.0), ("8", 5.0), ("12", 6.0), (None, 7.5))]
    told.insert(2, {"type": "progress", "data": {"node": "7"}, "at": 3.0})
    assert real_run.sampler_seconds(told, ("7", "12")) == 4.5
    assert real_run.sampler_seconds(told, ("99",)) is None


def summary(**more):
    about = {"model": "FLUX.1-dev", "workflow": "flux_dev_femo", "files": ["flux1-dev.safetensors"], "gpu": "a GPU",
             "comfyui": "0.33", "pytorch": "2", "steps": 50, "seed": 1, "made": "2026-11-28", "learning": {},
             "methods": [{"name": name, "node": cache} for name, cache in (
                 ("full", ""), ("fewer steps, 2×", ""), ("FeMo O=1, N=6", "FeMoCache"), ("EasyCache", "EasyCache"))]}
    records = [
        {"prompt": 0, "method": "full", "seconds": 10.0, "steps": 50},
        {"prompt": 0, "method": "fewer steps, 2×", "seconds": 5.0, "steps": 25, "psnr": 30.0, "ssim": 0.9},
        {"prompt": 0, "method": "FeMo O=1, N=6", "seconds": 2.5, "runs": 10, "runs_full": 50, "psnr": 20.0, "ssim": 0.7,
         "sites": ["module"], "said": [], "image_reward": 1.0},
        {"prompt": 0, "method": "EasyCache", "failed": "out of memory"},
        {"prompt": 1, "method": "full", "seconds": None, "steps": 50},
        {"prompt": 1, "method": "FeMo O=1, N=6", "seconds": 99.0, "runs": 10, "runs_full": 50, "psnr": 30.0,
         "ssim": 0.9}]
    return real_page.summarised(about | more, records)


def test_a_summary_by_hand():
    full, fewer, femo, easy = summary()["methods"]
    assert (full["runs"], fewer["runs"], femo["runs"]) == (50.0, 25.0, 10)
    assert (fewer["flops_speedup"], femo["flops_speedup"]) == (2.0, 5.0)
    assert (fewer["latency_speedup"], femo["latency_speedup"]) == (2.0, 4.0)  # of prompts at which both were timed
    assert (femo["psnr"], femo["prompts"]) == (25.0, 2)
    assert (easy["prompts"], easy["failed"], easy["said"]) == (0, 1, ["out of memory"])
    text = real_page.table(summary())
    assert "| FeMo O=1, N=6 | 2 | 2.50 | 4.00× | 10.0 | 5.00× | 25.00 | 0.8000 | 1.0000 | module | – |" in text
    assert "| EasyCache | 0 of 1 | – | – | – | – | – | – | – | – | out of memory |" in text


def test_the_page_stands_beside_the_papers_and_is_empty_where_nothing_was_measured():
    empty = real_page.page([])
    assert "| Adapted-FeMo O=1, N=7 | FeMo | 4.700 | 3.66× | 5.55× | 0.9770 | 19.556 |" in empty
    reported = "| FeMo O=1, N=6 | FeMo |  |  | 4.99× | 0.9950 |  |  |  |  |"
    assert f"{reported}  |  |  |  |  |  |  |  |" in empty
    assert f"{reported} 2.500 | 4.00× | 5.00× | 1.0000 |  | 25.00 | 0.8000 |  |" in real_page.page([summary()])


def test_the_page_in_the_repository_is_what_was_sent_in():
    path = real_page.SENT.with_suffix(".md")
    assert path.read_text(encoding="utf-8") == real_page.page(real_page.sent())
    for one in real_page.sent():
        assert not {"prompt", "prompts_text", "pictures"} & one.keys()


def picture(value, side=16):
    return torch.full((3, side, side), float(value))


def test_distances_are_means_over_the_pictures_and_the_worst():
    found = real_metrics.distances([picture(0.0), picture(0.2)], [picture(0.0), picture(0.0)])
    assert found["psnr_min"] == pytest.approx(20 * math.log10(2 / 0.2), abs=1e-3)
    assert found["psnr"] == pytest.approx((real_metrics.EQUAL + found["psnr_min"]) / 2)
    assert "ssim" not in real_metrics.distances([picture(0.0, 8)], [picture(0.1, 8)])
    with pytest.raises(ValueError, match="1 pictures of 16 × 16, and the full run made 2"):
        real_metrics.distances([picture(0.0)], [picture(0.0)] * 2)


def test_an_image_and_its_pixels():
    values = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)
    assert (real_metrics.pixels(real_metrics.image_of(values)) - values).abs().max() < 1 / 127


class Network:
    """Stands in for all three packages' models."""

    def eval(self):
        return self

    def __call__(self, one, other):
        return (one - other).abs().mean()

    def score(self, prompt, image):
        return len(prompt) + image.width

    def encode_image(self, batch):
        return batch

    def encode_text(self, batch):
        return batch


def test_further_metrics_are_used_where_they_are_installed(monkeypatch):
    def package(name, **values):
        module = ModuleType(name)
        module.__spec__ = SimpleNamespace()
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)

    package("lpips", LPIPS=lambda net, verbose: Network())
    package("ImageReward", load=lambda name: Network())
    package("open_clip", get_tokenizer=lambda name: lambda texts: torch.tensor([[1.0, 0.0]]),
            create_model_and_transforms=lambda name, pretrained: (
                Network(), None, lambda image: torch.tensor([1.0, 1.0])))
    metrics = real_metrics.installed()
    full, near = [picture(0.0)], [picture(0.5)]
    assert metrics["lpips"](near, full, "four") == pytest.approx(0.5)
    assert math.isnan(metrics["lpips"](full, full, "four"))
    assert metrics["image_reward"](near, full, "four") == 20.0
    assert metrics["clip"](near, full, "four") == pytest.approx(100 / math.sqrt(2))


def test_one_that_is_installed_but_fails_is_left_out(monkeypatch, capsys):
    broken = ModuleType("lpips")
    broken.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "lpips", broken)
    assert "lpips" not in real_metrics.installed()
    assert "lpips is left out" in capsys.readouterr().out


def test_a_run_that_was_cut_off_in_mid_write_is_made_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"prompt": 0, "method": "full"}\n{"prompt": 0, "met', encoding="utf-8")
    assert real_run.read_records(path) == [{"prompt": 0, "method": "full"}]
    assert json.loads(path.read_text(encoding="utf-8")) == {"prompt": 0, "method": "full"}
