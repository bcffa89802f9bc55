"""The nodes' inputs are permanent: workflows have them."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_host import PACK, femo_core, femo_node, taylorseer_node
from small_flux import build_flux

SHARED = {
    "enabled": ("BOOLEAN", True, None, None),
    "interval": ("INT", 0, 0, 20),
    "max_order": ("INT", 1, 0, 4),
    "warmup_steps": ("INT", 3, 1, 1000),
    "cooldown_steps": ("INT", 1, 0, 1000),
}
FEMO = {
    "beta": ("FLOAT", 0.325, -0.95, 0.95),
    "gamma": ("FLOAT", 0.0, 0.0, 0.5),
    "beta_min": ("FLOAT", 0.2, -0.95, 0.95),
    "beta_max": ("FLOAT", 0.45, -0.95, 0.95),
}
ORDER = {
    "FeMoCache": ["model", "enabled", "interval", "max_order", "beta", "gamma", "beta_min", "beta_max", "warmup_steps",
                  "cooldown_steps", "site"],
    "TaylorSeerCache": ["model", "enabled", "interval", "max_order", "warmup_steps", "cooldown_steps", "site"],
}
SHARED_OPTIONAL = ["max_consecutive", "coordinate", "cache_device", "calibration", "budget", "tolerance"]
OPTIONAL = {"FeMoCache": ["momentum_start", *SHARED_OPTIONAL, "adaptation"], "TaylorSeerCache": SHARED_OPTIONAL}
NODES = {"FeMoCache": femo_node.FeMoCache, "TaylorSeerCache": taylorseer_node.TaylorSeerCache}


def test_the_entry_point_gives_the_nodes():
    extension = asyncio.run(sys.modules[PACK].comfy_entrypoint())
    nodes = {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}
    assert {node_id: nodes[node_id] for node_id in NODES} == NODES
    assert {node.GET_SCHEMA().display_name for node in nodes.values()} == {
        "FeMo Auto", "FeMo Cache", "TaylorSeer Cache", "FeMo Calibrate", "FeMo Report", "Image Fidelity", "Load DiT",
        "DiT Class Label"}
    assert {node.GET_SCHEMA().category for node in nodes.values()} == {"model_patches/femo"}


HEAVY = ("diffusers", "kornia", "matplotlib", "scipy", "sympy", "torch._dynamo", "torch._inductor", "torchvision",
         "transformers", "triton")
ALONE = """
import sys
from hosts import STUBS, load_pack, this_host
sys.path[:0] = [str(STUBS), str(this_host())]
from comfy.cli_args import args
args.cpu = True
import comfy.sample, comfy_api.latest, folder_paths
before = set(sys.modules)
load_pack("pack")
print("imported", *sorted(set(sys.modules) - before))
"""


def test_importing_the_pack_imports_nothing_that_takes_its_time():
    """It adds as good as nothing to the host's start."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE], cwd=Path(__file__).parent, capture_output=True,
                          text=True, check=True)
    names = done.stdout.split("imported ")[-1].split()
    assert "pack.nodes.run.attach" in names
    assert not [name for name in names if f"{name}.".startswith(tuple(f"{heavy}." for heavy in HEAVY))]
    tops = {name.partition(".")[0] for name in names if not name.startswith("comfy")}
    assert tops <= {"pack", "PIL", "numpy", "torch", *sys.stdlib_module_names}


@pytest.mark.parametrize("node_id", NODES)
def test_inputs_ranges_and_defaults(node_id):
    inputs = NODES[node_id].INPUT_TYPES()["required"]
    assert list(inputs) == ORDER[node_id]
    for name, (kind, default, low, high) in (SHARED | (FEMO if node_id == "FeMoCache" else {})).items():
        found, options = inputs[name]
        assert (found, options["default"], options.get("min"), options.get("max")) == (kind, default, low, high)
    kind, options = inputs["site"]
    assert (options.get("options") or kind) == ["hidden", "module", "output"]
    assert options["default"] == "hidden"
    optional = NODES[node_id].INPUT_TYPES()["optional"]
    assert list(optional) == OPTIONAL[node_id]
    assert optional["calibration"][1]["default"] == "none"
    assert {key: optional["budget"][1][key] for key in ("default", "min", "max")} == {
        "default": 0, "min": 0, "max": 1000}
    assert {key: optional["tolerance"][1][key] for key in ("default", "min", "max")} == {
        "default": 0.0, "min": 0.0, "max": 1.0}


@pytest.mark.parametrize(("node_id", "name", "symbol"), [
    ("FeMoCache", "interval", "N"), ("FeMoCache", "max_order", "O"), ("FeMoCache", "beta", "β"),
    ("FeMoCache", "gamma", "γ"), ("TaylorSeerCache", "interval", "N"), ("TaylorSeerCache", "max_order", "O")])
def test_tooltips_name_the_papers_symbol_and_a_sensible_range(node_id, name, symbol):
    tooltip = NODES[node_id].INPUT_TYPES()["required"][name][1]["tooltip"]
    assert symbol in tooltip
    assert "ensible" in tooltip or "papers use" in tooltip


def test_every_input_and_output_has_a_tooltip():
    extension = asyncio.run(sys.modules[PACK].comfy_entrypoint())
    for node in asyncio.run(extension.get_node_list()):
        schema = node.GET_SCHEMA()
        assert all(part.tooltip for part in (*schema.inputs, *schema.outputs)), schema.node_id
        assert schema.description


@pytest.mark.parametrize("node_id", NODES)
def test_presets_are_values_that_the_widgets_have(node_id, execute):
    presets = NODES[node_id].INPUT_TYPES()["required"]["model"][1]["femo_presets"]
    assert presets
    known = settings(node_id)
    for name, values in presets.items():
        assert values.keys() <= known.keys(), name
        execute(node_id, **values)
    if node_id == "FeMoCache":
        first = presets["FLUX: any number of steps"]
        assert {key: known[key] for key in first} == first  # what a new node has




def test_the_defaults_are_what_was_measured_best():
    presets = importlib.import_module(f"{PACK}.femo_core.presets")
    values = settings("FeMoCache")
    preset = presets.MEASURED["FLUX"]
    assert preset.predictor == femo_core.FeMo(
        values["max_order"], beta=values["beta"], momentum_start=values["momentum_start"])
    assert (preset.warmup_steps, preset.cooldown_steps) == (values["warmup_steps"], values["cooldown_steps"])


def test_a_workflow_without_momentum_start_means_what_it_meant_before_there_was_one(execute):
    def start(*without, **changes):
        model = execute("FeMoCache", *without, **changes)
        return model.wrappers["outer_sample"]["femo"][0].__self__.config.predictor.momentum_start

    assert start("momentum_start") == "zero"
    assert start() == "feature"
    assert start(momentum_start="zero") == "zero"


def test_adaptation_is_the_predictors(execute):
    def predictor(*without, **changes):
        model = execute("FeMoCache", *without, **changes)
        return model.wrappers["outer_sample"]["femo"][0].__self__.config.predictor

    assert predictor("adaptation").adaptation == predictor().adaptation == "sign"
    fitted = predictor(adaptation="least_squares", beta=-0.2, beta_min=-0.6, beta_max=0.9)
    assert (fitted.adaptation, fitted.beta_min, fitted.beta_max) == ("least_squares", -0.6, 0.9)


def settings(node_id, **changes):
    found = NODES[node_id].INPUT_TYPES()
    inputs = found["required"] | found.get("optional", {})
    return {name: options["default"] for name, (_, options) in inputs.items() if "default" in options} | changes


@pytest.fixture
def execute():
    def execute(node_id, *without, **changes):
        node = NODES[node_id].PREPARE_CLASS_CLONE(None)
        node.hidden = type("Hidden", (), {"unique_id": "7"})
        values = {name: value for name, value in settings(node_id, **changes).items() if name not in without}
        return node.execute(model=build_flux(), **values).result[0]

    return execute


@pytest.mark.parametrize("node_id", NODES)
def test_switched_off_the_model_passes_through_whatever_the_other_inputs_say(node_id):
    model, node = build_flux(), NODES[node_id]
    values = settings(node_id, enabled=False)
    if node_id == "FeMoCache":
        values |= {"beta": 0.9, "gamma": 0.1}
    assert node.execute(model=model, **values).result[0] is model


@pytest.mark.parametrize("node_id", NODES)
def test_a_like_node_elsewhere_does_not_share_this_ones_output(node_id):
    assert NODES[node_id].GET_SCHEMA().not_idempotent


def test_the_defaults_make_a_patched_clone(execute):
    for node_id in NODES:
        model = execute(node_id)
        assert "femo" in model.wrappers["outer_sample"]


@pytest.mark.parametrize(("node_id", "changes", "words"), [
    ("FeMoCache", {"interval": -1}, "interval must be 0 or more; got -1"),
    ("FeMoCache", {"max_order": 9}, "max_order must be 0 … 4; got 9"),
    ("FeMoCache", {"beta": 1.0}, "beta must be between"),
    ("FeMoCache", {"beta_min": 0.6}, "beta_min must not exceed beta_max"),
    ("FeMoCache", {"beta": 0.9, "gamma": 0.01}, "widen the bounds or set gamma to 0"),
    ("FeMoCache", {"beta": 0.1, "adaptation": "least_squares"}, "0.1 outside 0.2 … 0.45: widen the bounds or set adap"),
    ("TaylorSeerCache", {"budget": -1}, "budget must be 0 or more; got -1"),
    ("TaylorSeerCache", {"tolerance": 2.0}, r"tolerance must be 0 … 1 \(0 is off\); got 2.0"),
    ("TaylorSeerCache", {"warmup_steps": 0}, "warmup_steps must be 1 or more; got 0"),
    ("TaylorSeerCache", {"site": "nowhere"}, "site must be one of hidden, module, output; got 'nowhere'"),
])
def test_bad_input_names_parameter_value_and_remedy(execute, node_id, changes, words):
    with pytest.raises(ValueError, match=words):
        execute(node_id, **changes)
