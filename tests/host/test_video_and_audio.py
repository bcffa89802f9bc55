"""Models that make a video and its sound at once, above all MiniMax-H3."""

from __future__ import annotations

import pytest
import torch
from comfy_host import RunCounter, accelerated, comfy, distance, femo_core
from small_models import available, build, conditioning, packed, parts_of, sample
from small_videos import VIDEOS

MODELS = [small for small in VIDEOS if small.beside and small.parts[1] == "audio" and available(small)]
MINIMAX = [small for small in MODELS if "MiniMax" in small.name]
by_name = {"ids": lambda small: small.name.replace(" ", "-")}


@pytest.mark.parametrize("small", MODELS, **by_name)
@pytest.mark.parametrize("predictor", [femo_core.TaylorSeer(1), femo_core.FeMo(1, beta=0.1)], ids=["Taylor", "FeMo"])
def test_neither_is_farther_from_the_full_run_than_with_reuse(small, predictor):
    model = build(small)
    full = parts_of(small, sample(small, model, steps=20))
    forecast = parts_of(small, sample(small, accelerated(model, predictor), steps=20))
    reuse = parts_of(small, sample(small, accelerated(model, femo_core.TaylorSeer(0)), steps=20))
    for part, exact in full.items():
        assert distance(forecast[part], exact) <= distance(reuse[part], exact), part


@pytest.mark.parametrize("small", MINIMAX, **by_name)
def test_two_stages(small, reports):
    """A small video is made, then a larger one from it, with the sound that goes on; the model is one."""
    model = build(small)
    sigmas = torch.linspace(1, 0, 13)

    def both(model):
        """Packed, the second stage's."""
        first = comfy.utils.unpack_latents(
            sample(small, model, sigmas=sigmas[:9], cfg=3.0), [(1, *small.latent), (1, *small.beside)])
        video = torch.nn.functional.interpolate(first[0], scale_factor=(1, 2, 2))
        latent = comfy.nested_tensor.NestedTensor([video, first[1]])
        generator = torch.Generator().manual_seed(2)
        start = comfy.nested_tensor.NestedTensor(
            [torch.randn(part.shape, generator=generator) for part in latent.unbind()])
        with torch.inference_mode():
            return packed(comfy.sample.sample_custom(
                model, start, 3.0, comfy.samplers.sampler_object("euler"), sigmas[4:],
                of_any_shape(conditioning(small, 1)), of_any_shape(conditioning(small, 2)), latent,
                disable_pbar=True, seed=2))

    full = both(model)
    assert torch.equal(both(accelerated(model, interval=1)), full)
    with RunCounter(model) as runs:
        result = both(accelerated(model))
    assert distance(result, full) < 0.1
    assert [report.warnings for report in reports] == [()] * 4
    assert {report.settings["site"] for report in reports} == {"hidden"}
    assert runs.count == sum(report.network_runs for report in reports[2:])
    assert [len(report.full_steps) for report in reports[2:]] == [4, 4]


def of_any_shape(cond):
    """Without what is of the first stage's."""
    return [[text, {name: value for name, value in more.items() if name == "minimax_refs"}] for text, more in cond]


@pytest.mark.parametrize("small", MINIMAX[:1], **by_name)
def test_prompts_of_unequal_length_have_a_beta_each(small, reports):
    model = build(small)
    longer = [[torch.cat([text, text], dim=1), more] for text, more in conditioning(small, 2)]
    sample(small, accelerated(model, femo_core.FeMo(1, gamma=0.05)), cfg=3.0, negative=longer)
    assert reports[0].warnings == ()
    assert {row["stream"] for row in reports[0].betas} == {0, 1}
    assert {len(row["beta"]) for row in reports[0].betas} == {1}
