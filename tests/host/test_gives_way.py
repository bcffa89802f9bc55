"""A site whose features do not all come gives way to the next within the run."""

from __future__ import annotations

import pytest
import torch
from comfy_host import RunCounter, accelerated, distance, femo_core, leftovers
from small_models import build
from small_models import sample as sample_small
from test_flux import sample
from test_video_and_audio import MINIMAX

FULL = femo_core.Schedule(3, 3).full_steps(12)


@pytest.fixture
def fused(flux):
    """Modules that are computed without being called, as fused and compiled ones are: hooks on them do not fire."""
    changed = []

    def fuse(*paths):
        for path in paths:
            module = flux.model.diffusion_model.get_submodule(path)
            kind = type(module)
            changed.append((module, kind))
            module.__class__ = type("Fused", (kind,), {"__call__": kind.forward})

    yield fuse
    for module, kind in changed:
        module.__class__ = kind


@pytest.mark.parametrize(("path", "asked", "site"), [
    ("double_blocks.1.img_attn.proj", "module", "hidden"),
    ("single_blocks.2.linear2", "module", "hidden"),
    ("double_blocks.0.img_mlp", "module", "hidden"),
    ("final_layer", "hidden", "output"),
])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_to_the_next_with_one_line(flux, fused, path, asked, site, cfg, reports, caplog):
    full = sample(flux, cfg=cfg)
    fused(path)
    assert torch.equal(sample(flux, cfg=cfg), full)
    with RunCounter(flux) as runs:
        result = sample(accelerated(flux, site=asked), cfg=cfg)
    report = reports[0]
    assert (report.settings["site"], report.full_steps) == (site, FULL)
    assert runs.count == len(FULL)
    assert report.errors
    said = [record.message for record in caplog.records if "instead of" in record.message]
    assert len(said) == len(report.warnings) == 1
    assert f"at site {site} instead of {asked}: modules" in said[0]
    assert torch.isfinite(result).all()
    assert leftovers(flux) == []


def test_down_to_the_output(flux, fused, reports):
    fused("double_blocks.1.img_attn.proj", "final_layer")
    with RunCounter(flux) as runs:
        sample(accelerated(flux, site="module", warmup=4))
    assert reports[0].settings["site"] == "output"
    assert runs.count == len(femo_core.Schedule(3, 4).full_steps(12))
    assert len(reports[0].warnings) == 1


def test_from_the_first_evaluation_on(flux, fused, reports):
    """It is not gone back to by the size that was measured of it."""
    fused("double_blocks.1.img_attn.proj")
    sample(accelerated(flux, site="module", warmup=1))
    assert reports[0].settings["site"] == "hidden"
    assert reports[0].predicted_steps


@pytest.mark.parametrize("replaced", [("double_block", 1), ("single_block", 0)])
def test_of_replaced_blocks(flux, replaced, reports):
    """What another node puts in a block's place runs on full steps, and is passed by on the others."""
    model, ran = flux.clone(), []

    def own(args, _extra):
        ran.append(replaced)
        return {"img": args["img"], "txt": args["txt"]} if "txt" in args else {"img": args["img"]}

    model.set_model_patch_replace(own, "dit", *replaced)
    full = sample(model)
    assert torch.isfinite(full).all()
    ran.clear()
    sample(accelerated(model, site="module"))
    report = reports[0]
    assert (report.settings["site"], report.full_steps) == ("hidden", FULL)
    assert len(report.warnings) == 1
    assert len(ran) == len(FULL)


def test_a_head_that_is_called_in_another_way(reports):
    """As one of another version may be, whose class has the same name and parts."""
    if not MINIMAX:
        pytest.skip("this ComfyUI has no model whose head is viewed")
    small = MINIMAX[0]
    model = build(small)
    head = model.model.diffusion_model.final_layer
    kind, names = type(head), ("x", "t_emb", "video_seg", "audio_seg")
    head.__class__ = type("ByName", (kind,), {
        "__call__": lambda self, *args: torch.nn.Module.__call__(self, **dict(zip(names, args, strict=True)))})
    full = sample_small(small, model)
    result = sample_small(small, accelerated(model))
    assert (reports[0].settings["site"], reports[0].full_steps) == ("output", FULL)
    assert len(reports[0].warnings) == 1
    assert distance(result, full) < 0.1
