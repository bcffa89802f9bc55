"""FeMo Calibrate: what it records of a full run, and what cache nodes make of it."""

from __future__ import annotations

import json
import math
import sys
import threading

import pytest
import small_models
import torch
from comfy_host import (
    OTHER_CACHES,
    PACK,
    Breaks,
    RunCounter,
    attach_module,
    calibrate_node,
    calibration_file,
    comfy,
    femo_core,
    leftovers,
    with_other_cache,
)
from small_flux import build_flux, sample
from small_images import IMAGES

full_steps = sys.modules[f"{PACK}.nodes.learned.full_steps"]
fingerprint = sys.modules[f"{PACK}.nodes.learned.identity"].fingerprint
folder_paths = sys.modules["folder_paths"]
STEPS = 12
LINE = femo_core.TaylorSeer(1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where calibrations are, in this test."""
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return tmp_path / "default" / "femo_calibrations"


@pytest.fixture
def shown(monkeypatch):
    """What the node says in the browser."""
    said = []
    monkeypatch.setattr(sys.modules[f"{PACK}.nodes.run.recorder"], "show", lambda text, node_id: said.append(text))
    return said


def calibrating(model, name="dit", average=False, enabled=True):
    node = calibrate_node.FeMoCalibrate.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": "3"})
    return node.execute(model=model, enabled=enabled, name=name, average=average).result[0]


def cached(model, name="dit", budget=5, predictor=LINE, site="output", schedule=None, **config):
    return attach_module.attach(model, attach_module.CacheConfig(
        predictor, schedule or femo_core.Schedule(3, 2, 1), site=site, calibration=name, budget=budget, **config))


def derivatives(model, **settings):
    """(S, ...): (x − denoised) / σ at each step, taken from what the sampler itself tells its callback."""
    found, sigmas = [], settings_of(model, **settings)

    def callback(step, denoised, x, _):
        found.append(((x - denoised) / sigmas[step]).flatten())

    sample(model, callback=callback, **settings)
    return torch.stack(found).double()


def recorded(name):
    """Of the file, which has one recording."""
    (found,) = calibration_file.read(name).recordings
    return found


def settings_of(model, scheduler="simple", steps=STEPS, **_):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)


# Recording

@pytest.mark.parametrize("settings", [
    {}, {"cfg": 3.0}, {"cfg": 3.0, "batch": 2}, {"sampler": "ddim", "scheduler": "normal"},
    {"sampler": "euler_ancestral"}, {"sampler": "dpmpp_2m"}])
def test_the_picture_stays_and_the_matrix_is_that_of_the_run(flux, folder, settings):
    plain = sample(flux, **settings)
    assert torch.equal(sample(calibrating(flux), **settings), plain)
    assert leftovers(flux) == []
    profile = json.loads((folder / "dit.json").read_text())
    (saved,) = profile["recordings"]
    features, sigmas = derivatives(flux, **settings), settings_of(flux, **settings)
    expected = features @ features.T / features.shape[1]
    matrix = torch.tensor(saved["matrix"], dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(torch.tensor(saved["sigmas"]), sigmas)
    torch.testing.assert_close(torch.tensor(saved["signals"]), 1 - sigmas)  # a flow model
    assert len(saved["matrix"]) == STEPS == len(sigmas) - 1
    assert (profile["version"], saved["runs"]) == (2, 1)
    assert saved["stochastic"] == ("ancestral" in settings.get("sampler", ""))
    assert saved["sampler"] == settings.get("sampler", "euler").replace("ddim", "euler")
    assert saved["guidance"] == settings.get("cfg", 1.0)
    assert saved["shift"] == flux.get_model_object("model_sampling").shift
    assert profile["model"].startswith("Flux, Flux, FLUX, ")


@pytest.mark.parametrize("name", ["FLUX.1 dev", "SD1.5"])
def test_of_flow_models_and_those_that_predict_noise_it_is_the_networks_own_output(name):
    """Unguided: what the network returned."""
    small = next(small for small in IMAGES if small.name == name)
    model, outputs = small_models.build(small), []
    handle = model.model.diffusion_model.register_forward_hook(lambda *args: outputs.append(args[2].flatten()))
    small_models.sample(small, calibrating(model))
    handle.remove()
    signals = recorded("dit").signals
    assert signals == ((1.0,) * len(signals) if name == "SD1.5" else pytest.approx(
        [1 - sigma for sigma in recorded("dit").sigmas]))
    features = torch.stack(outputs).double()
    matrix = torch.tensor(recorded("dit").matrix, dtype=torch.float64)
    torch.testing.assert_close(matrix, features @ features.T / features.shape[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(flux, folder, sampler, shown):
    """Those that run the model at each step's noise level are recorded, of the rest nothing is saved, with a word."""
    plain = sample(flux, sampler=sampler, steps=6)
    assert torch.equal(sample(calibrating(flux), sampler=sampler, steps=6), plain)
    if sampler in {"dpm_fast", "dpm_adaptive"}:  # they choose their own
        assert not folder.exists()
        assert "calibrate with another one, euler for example" in shown[0]
    elif torch.isfinite(plain).all():
        assert recorded("dit").steps == 6
        assert shown == ["saved as dit: 6 steps, runs: 1"]


def test_of_two_evaluations_at_one_level_the_last_counts(flux):
    """The step starts from it: heun's corrector came to that level before."""
    sample(calibrating(flux, "heun"), sampler="heun")
    features = derivatives(flux, sampler="heun")
    matrix = torch.tensor(recorded("heun").matrix, dtype=torch.float64)
    torch.testing.assert_close(matrix, features @ features.T / features.shape[1], rtol=1e-4, atol=1e-6)


def test_part_of_a_run_is_recorded_as_what_it_is(flux):
    """Image to image: the levels of this run, not those of a whole one."""
    latent = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    settings = {"denoise": 0.5, "latent": latent}
    assert torch.equal(sample(calibrating(flux), **settings), sample(flux, **settings))
    saved = recorded("dit")
    assert saved.steps == STEPS
    assert saved.sigmas[0] < 0.9


def test_runs_are_averaged_only_when_asked_for(flux, shown):
    for seed in (1, 2, 3):
        sample(calibrating(flux, "mean", average=True), seed=seed)
        sample(calibrating(flux, f"run {seed}"), seed=seed)
        sample(calibrating(flux, "last"), seed=seed)
    single = [torch.tensor(recorded(f"run {seed}").matrix) for seed in (1, 2, 3)]
    mean, last = recorded("mean"), recorded("last")
    assert (mean.runs, last.runs) == (3, 1)
    torch.testing.assert_close(torch.tensor(mean.matrix), sum(single) / 3)
    assert torch.equal(torch.tensor(last.matrix), single[2])
    sample(calibrating(flux, "mean", average=True), steps=6)
    assert "nothing was saved as mean: it is of 12 steps at other noise levels" in shown[-1]
    assert recorded("mean") == mean


def test_a_run_that_was_stopped_or_failed_saves_nothing(flux, folder):
    part = flux.model.diffusion_model.single_blocks[0].linear1
    for error in (comfy.model_management.InterruptProcessingException(), RuntimeError("out of memory")):
        model = calibrating(flux)
        with Breaks(part, error, STEPS), pytest.raises(type(error)):
            sample(model)
        assert not folder.exists()
    sample(model)
    assert recorded("dit").steps == STEPS


@pytest.mark.parametrize("other", OTHER_CACHES)
def test_beside_what_may_skip_steps_nothing_is_saved(flux, folder, shown, other):
    model = with_other_cache(flux, other)
    assert torch.equal(sample(calibrating(model)), sample(model))
    assert not folder.exists()
    assert "nothing was saved as dit: a calibration needs a full run: " in shown[0]


@pytest.mark.parametrize("calibrate_first", [True, False])
def test_a_run_that_is_accelerated_saves_nothing(flux, folder, calibrate_first, shown):
    cache = attach_module.CacheConfig(LINE, femo_core.Schedule(3))
    model = calibrating(flux) if calibrate_first else attach_module.attach(flux, cache)
    model = attach_module.attach(model, cache) if calibrate_first else calibrating(model)
    assert torch.equal(sample(model), sample(attach_module.attach(flux, cache)))
    assert not folder.exists()
    assert "FeMo Cache is on the same model and skips steps; switch it off" in shown[0]


def test_a_cache_that_skips_nothing_is_no_hindrance(flux):
    sample(calibrating(attach_module.attach(flux, attach_module.CacheConfig(LINE, femo_core.Schedule(1)))))
    assert recorded("dit").steps == STEPS


def test_switched_off_the_model_passes_through(flux):
    assert calibrating(flux, name="../no", enabled=False) is flux


def test_a_run_that_gave_nan_saves_nothing(flux, folder, shown):
    def broken(args):
        return args["denoised"] * math.nan

    model = flux.clone()
    model.set_model_sampler_post_cfg_function(broken)
    sample(calibrating(model))
    assert not folder.exists()
    assert "gave NaN or infinity" in shown[0]


def test_a_folder_that_can_not_be_written_does_not_cost_the_picture(flux, folder, shown):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the folder's place")
    assert torch.equal(sample(calibrating(flux)), sample(flux))
    assert "nothing was saved as dit" in shown[0]


# Files

@pytest.mark.parametrize("name", ["../dit", "a/b", "a\\b", "..", ".hidden", "", " ", "none", "a" * 101, "a\n", "C:x"])
def test_a_name_that_leads_elsewhere_is_refused(flux, name):
    with pytest.raises(ValueError, match="name must be letters, digits, spaces and"):
        calibrating(flux, name=name)


@pytest.mark.parametrize("name", ["flux dev 28", "Ärmel-2_b.1", "猫"])
def test_plain_names_are_offered_by_the_cache_nodes(flux, name):
    sample(calibrating(flux, name), steps=3)
    assert calibration_file.names() == [name]
    inputs = sys.modules[f"{PACK}.nodes.femo"].FeMoCache.INPUT_TYPES()["optional"]["calibration"]
    assert (inputs[1].get("options") or inputs[0]) == ["none", name]


def saved(steps=STEPS, scale=1.0, model="Flux", **changed):
    matrix = [[scale * math.cos((a - b) / steps) for b in range(steps)] for a in range(steps)]
    levels = [i / steps for i in range(steps + 1)]
    recording = femo_core.Recording(**{"sigmas": levels[::-1], "signals": levels, "matrix": matrix} | changed)
    return femo_core.Profile(model, (recording,))


def test_writers_and_readers_at_once_never_see_half_a_file(folder):
    errors, files = [], [saved(50, scale) for scale in (1.0, 2.0)]
    calibration_file.write("dit", files[0])

    def write(file):
        for _ in range(30):
            calibration_file.write("dit", file)

    def read():
        for _ in range(60):
            try:
                assert calibration_file.read("dit") in files
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(file,)) for file in files] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in folder.iterdir()] == ["dit.json"]


@pytest.mark.parametrize(("content", "words"), [
    ("{", "damaged or no calibration"), ("[]", "damaged or no calibration"), ("null", "damaged or no calibration"),
    ('{"version": 3}', "version 3, this pack reads 1 to 2"), ('{"version": 2}', "damaged or no calibration"),
    ('{"version": 1}', "damaged or no calibration"),
    (b"\xff\xfe", "damaged or no calibration")])
def test_a_broken_file_is_said_and_the_interval_serves(flux, folder, reports, content, words):
    folder.mkdir(parents=True)
    (folder / "dit.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert torch.equal(sample(cached(flux)), sample(cached(flux, "none")))
    assert reports[0].full_steps == femo_core.Schedule(3, 2, 1).full_steps(STEPS)
    (warning,) = reports[0].warnings
    assert warning.startswith("calibration dit is not used, but the interval")
    assert words in warning


@pytest.mark.parametrize("change", [
    {"matrix": [[1.0]]}, {"sigmas": [1.0]}, {"signals": [0.0, 1.0]}, {"runs": 0}, {"matrix": [["a"] * 2] * 2},
    {"matrix": [[math.nan] * 2] * 2}, {"model": ["Flux"]}])
def test_numbers_that_do_not_fit_are_refused(folder, change):
    calibration_file.write("dit", saved(2))
    path = folder / "dit.json"
    content = json.loads(path.read_text())
    content["recordings"][0] |= change
    path.write_text(json.dumps(content | ({"model": change["model"]} if "model" in change else {})))
    with pytest.raises(ValueError, match="damaged or no calibration"):
        recorded("dit")


def test_levels_that_lead_nowhere_cost_a_notice_only(flux, reports):
    calibration_file.write("dit", saved(model=fingerprint(flux.model), signals=(0.0,) * (STEPS + 1)))
    sample(cached(flux))
    assert "is not used, but the interval: " in reports[0].warnings[0]


def test_a_file_from_before_profiles_is_read(folder):
    """Version 1: one recording, its numbers flat beside the model's name."""
    recording = saved(4).recordings[0]
    folder.mkdir(parents=True)
    (folder / "old.json").write_text(json.dumps({
        "version": 1, "steps": 4, "model": "Flux", "sigmas": recording.sigmas, "signals": recording.signals,
        "matrix": recording.matrix, "runs": 1, "sampler": "euler", "shift": 1.15, "guidance": 1.0}))
    assert calibration_file.read("old") == saved(4)


# Use

def test_the_next_run_has_the_calibrated_full_steps(flux, reports):
    sample(calibrating(flux))
    of_run = recorded("dit")
    best = femo_core.calibrate_schedule(torch.tensor(of_run.matrix), of_run.step_weights, 5, LINE)
    with RunCounter(flux) as runs:
        sample(cached(flux))
    assert runs.count == 5
    assert reports[0].full_steps == best.full_steps(STEPS)
    assert reports[0].full_steps != femo_core.Schedule(3, 2, 1).full_steps(STEPS)
    assert reports[0].warnings == ()
    assert reports[0].settings["calibration"] == "dit"


@pytest.mark.parametrize(("budget", "full"), [(0, 6), (1, 1), (4, 4), (11, 11), (12, 12), (50, 12)])
def test_budgets(flux, reports, budget, full):
    """0: as many as the interval gives, which is 6."""
    sample(calibrating(flux))
    sample(cached(flux, budget=budget))
    assert len(reports[0].full_steps) == full
    assert len(femo_core.Schedule(3, 2, 1).full_steps(STEPS)) == 6


def test_every_predictor_is_calibrated_for_itself(flux, reports):
    sample(calibrating(flux))
    for predictor in (femo_core.TaylorSeer(0), femo_core.TaylorSeer(2), femo_core.FeMo(1, beta=-0.3)):
        sample(cached(flux, predictor=predictor))
        of_run = recorded("dit")
        best = femo_core.calibrate_schedule(torch.tensor(of_run.matrix), of_run.step_weights, 5, predictor)
        assert reports[-1].full_steps == best.full_steps(STEPS)


@pytest.mark.parametrize("config", [
    {"predictor": femo_core.FeMo(1, beta=0.3, gamma=0.02)},
    {"predictor": femo_core.FeMo(1, beta=0.3, adaptation="least_squares")},
    {"predictor": femo_core.FeMo(1, beta=0.3), "coordinate": "sigmas"}])
def test_what_it_does_not_reckon_with_is_said(flux, reports, config):
    """The full steps are those of a β that stays and of forecasts by steps."""
    sample(calibrating(flux))
    sample(cached(flux, predictor=femo_core.FeMo(1, beta=0.3)))
    sample(cached(flux, **config))
    assert reports[0].full_steps == reports[1].full_steps
    assert reports[0].warnings == ()
    (warning,) = reports[1].warnings
    assert "is reckoned for a fixed beta and for forecasts that go by steps" in warning


def test_what_it_expects_is_what_a_run_measures(flux, reports):
    """At site output, unguided, the features are those that were recorded, as long as forecasts move them little."""
    sample(calibrating(flux))
    sample(cached(flux))
    expected = {row["step"]: row["error"] for row in reports[0].expected_errors}
    measured = {row["step"]: row["error"] for row in reports[0].errors}
    assert list(expected) == list(reports[0].full_steps[1:])
    assert measured.keys() <= expected.keys()
    assert measured == pytest.approx({step: expected[step] for step in measured}, rel=0.02)  # 0.005 at most


def test_another_model_is_not_what_it_is_of(flux, reports):
    sample(calibrating(flux))
    other = build_flux("schnell")
    sample(cached(other), variant="schnell")
    assert reports[0].full_steps == femo_core.Schedule(3, 2, 1).full_steps(STEPS)
    assert "it is of another model (Flux, Flux, FLUX" in reports[0].warnings[0]


def test_a_patched_model_of_the_same_architecture_is_the_same(flux):
    """What a LoRA does: the values change, on loading; and a copy in another precision is the same model, too."""
    before = fingerprint(flux.model)
    model = flux.clone()
    key = "diffusion_model.single_blocks.0.linear1.weight"
    weight = model.model.diffusion_model.single_blocks[0].linear1.weight
    model.add_patches({key: (torch.ones_like(weight),)})
    plain, result = sample(flux), sample(calibrating(model))
    assert not torch.equal(plain, result)
    assert calibration_file.read("dit").model == before
    assert fingerprint(build_flux(dtype=torch.float16).model) == before
    assert fingerprint(build_flux(dtype=torch.float8_e4m3fn).model) == before


@pytest.mark.parametrize("steps", [6, 20, 24])
def test_another_number_of_steps_is_scaled_with_a_notice(flux, reports, steps):
    sample(calibrating(flux))
    sample(cached(flux))
    sample(cached(flux), steps=steps)
    expected = sorted({min(round(step * steps / STEPS), steps - 1) for step in reports[0].full_steps})
    assert list(reports[1].full_steps) == expected
    assert reports[1].warnings == (
        f"calibration dit is of 12 steps: its full steps stand at the same parts of these {steps}; FeMo Calibrate at "
        f"{steps} steps finds better ones",)
    assert reports[1].expected_errors == ()


def test_other_noise_levels_are_said(flux, reports):
    sample(calibrating(flux))
    sample(cached(flux), scheduler="karras")
    assert len(reports[0].full_steps) == 5
    assert "is of other noise levels (scheduler, shift or denoise)" in reports[0].warnings[0]


@pytest.mark.parametrize(("name", "words"), [
    ("gone", "there is no 'gone.json'"), ("../dit", "name must be"), ("a/b", "name must be")])
def test_a_missing_file_costs_a_notice_only(flux, reports, name, words):
    assert torch.equal(sample(cached(flux, name)), sample(cached(flux, "none")))
    assert words in reports[0].warnings[0]
    assert reports[0].settings["calibration"] == "none"
    assert reports[1].warnings == ()


def test_interval_one_stays_off(flux):
    sample(calibrating(flux))
    assert torch.equal(sample(cached(flux, schedule=femo_core.Schedule(1))), sample(flux))


def test_a_file_that_was_made_anew_is_another_input(flux):
    node = sys.modules[f"{PACK}.nodes.femo"].FeMoCache
    before = node.fingerprint_inputs(calibration="dit", interval=3)
    sample(calibrating(flux), steps=3)
    first = node.fingerprint_inputs(calibration="dit", interval=3)
    sample(calibrating(flux), steps=4)
    assert len({before, first, node.fingerprint_inputs(calibration="dit", interval=3)}) == 3
    assert node.fingerprint_inputs(interval=3) == node.fingerprint_inputs(calibration=None) == ""
    assert node.validate_inputs(calibration="from another machine") is True


def test_full_steps_are_chosen_once(monkeypatch):
    """Not for each tile or video anew."""
    calibration_file.write("dit", saved(model="same"))
    monkeypatch.setattr(full_steps, "fingerprint", lambda model: "same")
    calls, calibrate = [], full_steps.calibrate
    monkeypatch.setattr(full_steps, "calibrate", lambda *args: calls.append(args) or calibrate(*args))
    config = attach_module.CacheConfig(LINE, femo_core.Schedule(3), calibration="dit", budget=4)
    found = [full_steps.choose(config, None, saved().recordings[0].sigmas) for _ in range(3)]
    assert len(calls) == 1
    assert found[0] == found[1] == found[2]
    assert len(found[0].schedule.full_steps(STEPS)) == 4
