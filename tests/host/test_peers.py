"""Habits of other packs, each with a stand-in of our own for the code that has it.

docs/company.md says which packs they are, and how their own code was tried.
"""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch
from comfy_host import PACK, accelerated, calibrate_node, distance, leftovers
from small_flux import build_flux, sample

report_node = sys.modules[f"{PACK}.nodes.report"]
control = sys.modules[f"{PACK}.nodes.run.control"]
FULL = (0, 1, 2, 5, 8, 11)
SITES = ("hidden", "module", "output")


def check(make, run, reports, sites=SITES, full=FULL, near=0.6):
    """As without a node at interval 1; accelerated at 3; nothing left on the model. The plain result.

    make(model): what is sampled. run(model): samples it.
    """
    model = build_flux()
    plain = run(make(model))
    for site in sites:
        assert torch.equal(run(make(accelerated(model, interval=1, site=site))), plain), site
        result = run(make(accelerated(model, site=site)))
        assert reports[-1].full_steps == full, site
        assert distance(result, plain) < near, site
        assert leftovers(model) == []
    return plain


# What is copied

def copies_the_options(model):
    """As pre-CFG nodes do, on every step."""
    model = model.clone()
    model.set_model_sampler_post_cfg_function(
        lambda args: (copy.deepcopy(args["model_options"]), args["denoised"])[1])
    return model


def test_options_that_are_copied_deeply_in_a_run(reports):
    check(copies_the_options, sample, reports)


def test_what_others_can_reach_is_copied_and_pickled_without_the_network(flux):
    found = []

    def seen(args):
        options = args["model_options"]["transformer_options"]
        found.append((options["femo"], [*options["wrappers"]["predict_noise"]["femo_calibrate"],
                                        *options["wrappers"]["outer_sample"]["femo"]]))
        return args["denoised"]

    model = accelerated(calibrate(flux)).clone()
    model.set_model_sampler_post_cfg_function(seen)
    sample(model, steps=4)
    weights = sum(parameter.nbytes for parameter in flux.model.parameters())
    for own, wrappers in found:
        for thing in (own, *wrappers):
            assert len(pickle.dumps(copy.copy(thing))) < 5000 < weights
            assert copy.deepcopy(thing) == thing
            assert isinstance(pickle.loads(pickle.dumps(thing)), type(thing))
            assert len(repr(thing)) < 2000
        assert own.held is None  # what keeps it after the run keeps nothing of the run


@pytest.mark.parametrize("site", SITES)
def test_what_stands_in_for_blocks_is_copied_and_pickled_without_the_network(flux, site):
    sizes = []

    def wrapper(executor, *args, **kwargs):
        options = next(part for part in args if isinstance(part, dict) and "uuids" in part)
        replacements = copy.deepcopy(options.get("patches_replace", {}))
        sizes.append(len(pickle.dumps(replacements)))
        return executor(*args, **kwargs)

    model = accelerated(flux, site=site).clone()
    plain = sample(model)
    model.add_wrapper_with_key("diffusion_model", "other", wrapper)
    assert torch.equal(sample(model), plain)
    assert max(sizes) < 5000


def calibrate(model, name="peers"):
    node = calibrate_node.FeMoCalibrate.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "3"})
    return node.execute(model=model, enabled=True, name=name, average=False).result[0]


def test_a_controlnet_that_was_put_off_is_copied_and_pickled_without_it():
    class Network:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        __reduce__ = __deepcopy__

        def get_control(self, *arguments):
            return {"input": [1]}

    network = Network()
    (group,) = control.with_deferred_controls([[{"control": network}]])
    stand_in = group[0]["control"]
    deferred = stand_in.get_control(1, torch.ones(1), 3)
    assert copy.deepcopy([stand_in, deferred])[1].run() == {"input": [1]}
    assert copy.copy(stand_in).get_control(1, torch.ones(1), 3).run() == {"input": [1]}
    assert pickle.loads(pickle.dumps([stand_in, deferred]))[1] == {} == deferred
    assert pickle.loads(pickle.dumps(stand_in)).get_control(1, 2, 3) is None


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where calibrations are, in this test."""
    monkeypatch.setattr(sys.modules["folder_paths"], "get_user_directory", lambda: str(tmp_path))
    return tmp_path / "default" / "femo_calibrations"


# FeMo Report

def deep_copied(model):
    """All of a ModelPatcher but the network, as nodes do that put a LoRA into quantised weights."""
    return copy.deepcopy(model, {id(model.model): model.model})


def report_of(model):
    return report_node.FeMoReport.execute(model, after=None, save_json=False, filename_prefix="femo_report").result[0]


def test_the_report_of_a_model_that_was_copied_deeply_on_the_way(flux):
    model = accelerated(flux)
    sample(deep_copied(model))
    assert report_of(model).startswith("6 full and 6 predicted of 12 steps")


def test_without_a_report_the_prompt_goes_on(flux):
    """The cache node ran once more after the picture, since its result was no longer kept."""
    assert "there is no report" in report_of(accelerated(flux))
