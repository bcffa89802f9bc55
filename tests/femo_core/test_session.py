from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from no_read_back import NoReadBack

from femo_core import FeatureCache, FeMo, ForecastSession, Schedule, StateError, TaylorSeer
from femo_core.plans.readback import Readback

ROOT = Path(__file__).parents[2]


def drive(session, steps, streams=("a",), feature=lambda step: torch.full((2, 3), float(step))):
    """A host in small: one site, the network gives `feature(step)`. Returns which steps it ran in, by stream."""
    ran = {stream: [] for stream in streams}
    for step in steps:
        session.begin_step(step)
        for stream in streams:
            if session.begin_call([stream], ["x"]):
                forecast = session.forecast([stream], "x")
                torch.testing.assert_close(forecast, feature(step))
                session.count_run(saved=True)
            else:
                if session.wants_features(stream):
                    session.record(stream, {"x": feature(step)})
                session.count_run(saved=False)
                ran[stream].append(step)
    return ran


def test_the_network_runs_on_the_schedules_steps_and_lines_are_forecast_exactly(device):
    session = ForecastSession(Schedule(6, 3), TaylorSeer(1), 50)
    ran = drive(session, range(50), feature=lambda step: torch.full((2, 3), float(step), device=device))
    assert tuple(ran["a"]) == Schedule(6, 3).full_steps(50)
    report = session.report(seconds=1.5)
    assert (report.network_runs, report.network_runs_saved) == (10, 40)
    assert report.full_steps == Schedule(6, 3).full_steps(50)
    assert report.flops_speedup == 5.0
    assert report.reason == ""
    assert report.cache_bytes == 2 * 2 * 3 * 4
    assert "10 full and 40 forecast of 50 steps" in report.summary()


def test_a_part_of_the_features_goes_by_the_norms_of_the_whole():
    """Of the first of two numbers there is less than forecast, of both together more."""
    whole = {0: [9.0, 11.0], 1: [10.0, 10.0], 2: [11.0, 9.0], 5: [13.0, 20.0]}  # 14 and 6, were it forecast
    asked = []

    def share(norms):
        asked.append(norms)
        return torch.tensor([[[math.hypot(13.0, 20.0)], [math.hypot(14.0, 6.0)]]])

    betas = []
    for given in (None, share):
        session = ForecastSession(Schedule(3, 3), FeMo(1, beta=0.3, gamma=0.1), 9, share=given)
        for step, feature in whole.items():
            session.begin_step(step)
            session.begin_call(["a"], ["x"])
            session.record("a", {"x": torch.tensor([feature[:1]])})
        betas.append(session.report(0.0).betas[-1]["beta"])
    assert betas == [[pytest.approx(0.2)], [pytest.approx(0.4)]]
    (norms,) = asked  # one message, of the first number's norms
    torch.testing.assert_close(norms, torch.tensor([[[13.0], [14.0]]]))


def test_a_coordinate_of_its_own_is_what_the_predictor_goes_by():
    """A line over the coordinate, bent over the steps, is forecast exactly."""
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 13)
    for step in range(13):
        feature = torch.full((1, 2), 3.0 - step**2)
        session.begin_step(step, coordinate=float(step**2))
        if session.begin_call(["a"], ["x"]):
            torch.testing.assert_close(session.forecast(["a"], "x"), feature)
            session.count_run(saved=True)
        else:
            session.record("a", {"x": feature})
            session.count_run(saved=False)
    assert session.report(0.0).full_steps == Schedule(4, 2).full_steps(13)


@pytest.mark.parametrize("predictor", [TaylorSeer(2), FeMo(2, gamma=0.05)])
def test_buffers_may_lie_elsewhere_between_the_steps(predictor, device):
    def last_forecast(storage):
        cache = FeatureCache(predictor, storage)
        for step in (1, 2, 5, 8):
            cache.record("a", "x", torch.full((2, 3), math.exp(-step), device=device), step)
        kinds = {buffer.device.type for state in cache._states.values() for buffer in state.buffers}
        return cache.forecast("a", "x", 10), kinds

    there, kinds = last_forecast(torch.device("cpu"))
    here, _ = last_forecast(None)
    assert kinds == {"cpu"}
    assert torch.equal(there, here)
    assert there.device == here.device


def test_dropped_features_leave_the_streams_their_age():
    session = ForecastSession(Schedule(4, 3), TaylorSeer(1), 20)
    for step in range(20):
        session.begin_step(step)
        if step == 1:
            session.forget_features()
        if session.begin_call(["a"], ["x"]):
            session.count_run(saved=True)
        else:
            session.record("a", {"x": torch.ones(1, 2)})
            session.count_run(saved=False)
    assert session.report(0.0).full_steps == Schedule(4, 3).full_steps(20)


def test_an_empty_feature_is_a_feature():
    session = ForecastSession(Schedule(4, 2), FeMo(1, gamma=0.01), 12)
    drive(session, range(12), feature=lambda _: torch.zeros(1, 0, 4))
    assert session.report(0.0).warnings == ()


def test_the_report_is_json():
    session = ForecastSession(Schedule(4, 2), FeMo(1, gamma=0.01), 12)
    drive(session, range(12), streams=("a", "b"))
    report = json.loads(json.dumps(session.report(0.0, settings={"site": "hidden"}).to_dict()))
    expected = {"predictor": "FeMo", "beta": 0.325, "interval": 4, "site": "hidden"}
    assert expected.items() <= report["settings"].items()
    assert {entry["stream"] for entry in report["betas"]} == {0, 1}
    assert all(len(entry["beta"]) == 2 for entry in report["betas"])
    # Features before step 0 + warm-up 2 − 2 are none; the second full step has a derivative, the third an adapted beta.
    assert [entry["step"] for entry in report["betas"] if entry["stream"] == 0] == [5.0, 9.0]


def test_features_before_the_last_two_warmup_steps_are_not_recorded():
    session = ForecastSession(Schedule(6, 5), TaylorSeer(1), 30)
    wanted = []
    for step in range(6):
        session.begin_step(step)
        if session.begin_call(["a"], ["x"]):
            continue
        if session.wants_features("a"):
            wanted.append(step)
            session.record("a", {"x": torch.zeros(1, 1)})
    assert wanted == [3, 4]


def test_nothing_is_recorded_that_no_step_will_use():
    session = ForecastSession(Schedule(4, 2, 1), TaylorSeer(1), 10)
    wanted = []
    for step in range(10):
        session.begin_step(step)
        if not session.begin_call(["a"], ["x"]) and session.wants_features("a"):
            wanted.append(step)
            session.record("a", {"x": torch.ones(1, 1)})
    assert wanted == [0, 1, 5, 9]  # 9 is full, but the last: it is measured only
    assert session.cache._states["a", "x"].step == 5
    assert [row["step"] for row in session.report(0.0).errors] == [1, 5, 9]


@pytest.mark.parametrize(("schedule", "steps", "words"), [
    (Schedule(1), 10, "interval is 1"),
    (Schedule(6, 8), 5, "all 5 steps fall into the warm-up"),
    (Schedule(6, 3, 50), 20, "cool-down"),
])
def test_a_run_with_nothing_to_skip_is_full_and_says_why(schedule, steps, words):
    session = ForecastSession(schedule, TaylorSeer(1), steps)
    assert drive(session, range(steps))["a"] == list(range(steps))
    assert words in session.report(0.0).reason
    assert "nothing skipped" in session.report(0.0).summary()
    assert session.cache.nbytes == 0


def test_a_stream_that_comes_late_gets_a_warmup_of_its_own():
    session = ForecastSession(Schedule(6, 3), TaylorSeer(1), 30)
    drive(session, range(10))
    ran = drive(session, range(10, 20), streams=("a", "late"))
    assert ran["a"] == [14]
    assert ran["late"] == [10, 11, 12, 14]


def test_streams_do_not_mix():
    session = ForecastSession(Schedule(3, 2), TaylorSeer(1), 12)
    for step in range(12):
        session.begin_step(step)
        for sign, stream in ((1, "cond"), (-1, "uncond")):
            truth = torch.full((1, 2), float(sign * step))
            if session.begin_call([stream], ["x"]):
                torch.testing.assert_close(session.forecast([stream], "x"), truth)
            else:
                session.record(stream, {"x": truth})


def test_a_missing_site_is_a_full_step():
    session = ForecastSession(Schedule(6, 2), TaylorSeer(1), 20)
    for step in range(2):
        session.begin_step(step)
        session.begin_call(["a"], ["x"])
        session.record("a", {"x": torch.zeros(1, 1)})
    session.begin_step(2)
    assert session.begin_call(["a"], ["x"])
    assert not session.begin_call(["a"], ["x", "y"])
    assert not session.begin_call(["b"], ["x"])
    assert not session.begin_call(["a", "b"], ["x"])


def test_fractional_steps_follow_the_step_below_and_only_its_first_features_are_recorded():
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    ran = drive(session, [s + half for s in range(12) for half in (0.0, 0.5)])
    assert ran["a"] == [0, 0.5, 1, 1.5, 5, 5.5, 9, 9.5]


def test_a_coordinate_that_goes_back_starts_afresh():
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    drive(session, range(8))
    session.begin_step(2)
    assert not session.begin_call(["a"], ["x"])
    assert session.cache.nbytes == 0


def test_a_look_ahead_of_a_step_is_no_going_back():
    """heunpp2 evaluates i, i + 1, i + 2 and returns to i + 1."""
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    ran = drive(session, [step + ahead for step in range(10) for ahead in range(3)])
    assert set(ran["a"]) == {0, 1, 5, 9}


def test_evaluations_past_the_last_step_are_full_and_not_counted_as_steps():
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 7)
    assert drive(session, range(9))["a"] == [0, 1, 5, 7, 8]
    report = session.report(0.0)
    assert (report.full_steps, report.predicted_steps) == ((0, 1, 5, 6), (2, 3, 4))


def test_a_stream_that_missed_a_full_step_starts_afresh():
    session = ForecastSession(Schedule(6, 3), TaylorSeer(1), 50)
    drive(session, range(5), streams=("a", "gone"))
    drive(session, range(5, 33))
    ran = drive(session, range(33, 40), streams=("a", "gone"))
    assert ran["gone"] == [33, 34, 35, 38]


def test_a_changed_shape_starts_the_stream_afresh_with_one_warning():
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 20)
    for step in range(12):
        session.begin_step(step)
        shape = (1, 4) if step < 4 else (1, 9)
        if session.begin_call(["a"], ["x"]):
            assert step < 5 or session.forecast(["a"], "x").shape == shape
        else:
            session.record("a", {"x": torch.zeros(shape)})
    warnings = session.report(0.0).warnings
    assert len(warnings) == 1
    assert "forecasting starts afresh" in warnings[0]


def test_a_cache_refuses_another_shape():
    cache = FeatureCache(TaylorSeer(1))
    cache.record("a", "x", torch.zeros(1, 4), 0)
    with pytest.raises(StateError, match=r"\(1, 9\)"):
        cache.record("a", "x", torch.ones(1, 9), 1)


def test_a_repeated_coordinate_has_one_beta():
    session = ForecastSession(Schedule(4, 2), FeMo(1, gamma=0.01), 12)
    drive(session, [step for step in range(12) for _ in range(2)])
    assert [entry["step"] for entry in session.report(0.0).betas] == [5.0, 9.0]


def test_forecasting_an_unknown_stream_is_refused():
    with pytest.raises(StateError, match="nothing was recorded"):
        FeatureCache(TaylorSeer(1)).forecast("a", "x", 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity_are_noticed_at_the_end(bad, dtype, device):
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    for step in (0, 1, 5):
        session.begin_step(step)
        session.begin_call(["a"], ["x"])
        feature = torch.ones(2, 5, device=device, dtype=dtype)
        if step == 1:
            feature[1, 3] = bad
        session.record("a", {"x": feature})
    assert any("NaN or infinity" in warning for warning in session.report(0.0).warnings)


def test_large_finite_features_are_no_infinity(device):
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    session.begin_step(0)
    session.record("a", {
        "x": torch.full((64, 64), 60000.0, device=device, dtype=torch.float16),
        "y": torch.full((64, 64), 1e38, device=device),
    })
    assert session.report(0.0).warnings == ()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_run_reads_nothing_back_before_its_report(device):
    session = ForecastSession(Schedule(4, 2), FeMo(2, gamma=0.01), 12)
    features = [torch.randn(2, 3, device=device) for _ in range(12)]
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with NoReadBack():
            for step, feature in enumerate(features):
                session.begin_step(step)
                if session.begin_call(["a"], ["x"]):
                    session.forecast(["a"], "x")
                else:
                    session.record("a", {"x": feature})
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert session.report(0.0).betas


def test_close_frees_the_buffers():
    session = ForecastSession(Schedule(4, 2), TaylorSeer(1), 12)
    drive(session, range(6))
    assert session.cache.nbytes > 0
    session.close()
    assert session.cache.nbytes == 0


def test_the_core_imports_without_comfyui_and_without_anything_but_torch():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"comfy", "comfy_api", "nodes", "server", "safetensors", "diffusers"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import femo_core
print(femo_core.Schedule(6, 3).full_steps(50)[-1])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "44"


def test_errors_are_of_the_forecast_for_each_full_step():
    """A straight line is forecast exactly from its second point on; a curve is not."""
    session = ForecastSession(Schedule(3, 2), TaylorSeer(1), 12)
    for step in range(12):
        session.begin_step(step)
        if not session.begin_call(["a"], ["x"]) and session.wants_features("a"):
            session.record("a", {"x": torch.tensor([[1.0 + step, 2.0 + step**2]])})
    errors = {row["step"]: row["error"] for row in session.report(0.0).errors}
    assert set(errors) == {1, 4, 7, 10}
    before, last = 2.0 + 4**2, 2.0 + 7**2  # the curve at the full steps before 10
    forecast = last + (last - before) / 3 * 3
    assert errors[10] == pytest.approx((2.0 + 10**2 - forecast) / math.hypot(11.0, 102.0))


def test_evaluations_are_timed_by_whether_the_network_ran(monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 6.0, 6.5, 7.0, 100.0])
    monkeypatch.setattr("femo_core.session.measurements.time.perf_counter", lambda: next(clock))
    session = ForecastSession(Schedule(3, 3), TaylorSeer(1), 6)
    for step in range(6):
        session.begin_step(step)
        session.count_run(saved=step in (3, 4))
    report = session.report(0.0)
    assert (report.seconds_full_step, report.seconds_predicted_step) == (2.0, 0.5)
    assert report.time_speedup == pytest.approx(6 * 2.0 / (4 * 2.0 + 2 * 0.5))
    assert report.to_dict()["time_speedup"] == report.time_speedup


def test_progress_is_the_report_so_far():
    session = ForecastSession(Schedule(3, 3), TaylorSeer(1), 6)
    for step in range(4):
        session.begin_step(step)
        session.count_run(saved=step == 3)
    report = session.progress(1.0)
    assert (report.full_steps, report.predicted_steps, report.total_steps) == ((0, 1, 2), (3,), 6)
    assert report.reason == ""


def test_a_report_is_json_even_of_a_network_that_gives_nan_or_nothing():
    for value in (0.0, math.nan, math.inf):
        session = ForecastSession(Schedule(3, 3), FeMo(1, gamma=0.01), 9)
        for step in range(9):
            session.begin_step(step)
            if not session.begin_call(["a"], ["x"]) and session.wants_features("a"):
                session.record("a", {"x": torch.full((2, 3), value)})
        json.dumps(session.report(0.0).to_dict(), allow_nan=False)


def test_a_report_has_a_bound_whatever_the_run():
    """Of many streams, many samples and many warnings it holds some."""
    session = ForecastSession(Schedule(2, 2), FeMo(1, gamma=0.1), total_steps=100)
    streams = [f"window {i}" for i in range(60)]
    generator = torch.Generator().manual_seed(0)
    for i in range(200):
        session.warn(f"warning {i}")
    for step in range(100):
        session.begin_step(step)
        for stream in streams:
            if not session.begin_call([stream], ["x"]):
                session.record(stream, {"x": torch.randn(200, 3, generator=generator)})
    report = session.report(1.0)
    for rows in (report.errors, report.betas):
        assert 500 <= len(rows) <= 1050
        assert {row["stream"] for row in rows} == set(range(50))
        assert max(row["step"] for row in rows) > 90
    assert max(len(row["beta"]) for row in report.betas) == 64
    assert len(report.warnings) == 50
    assert len(json.dumps(report.to_dict())) < 3_000_000


# Breaks

def full_steps(session, feature):
    """Of one stream, whose forecasts may be off."""
    ran = []
    for step in range(session.total_steps):
        session.begin_step(step)
        if session.begin_call(["a"], ["x"]):
            session.count_run(saved=True)
        else:
            session.record("a", {"x": feature(step)})
            session.count_run(saved=False)
            ran.append(step)
    return ran


def leaping(step):
    """Follows a line, and leaps to another at step 12."""
    return torch.full((2, 3), 30.0 + 0.1 * step - (20.0 if step >= 12 else 0.0))


def test_where_a_forecast_is_far_worse_than_reuse_forecasting_starts_afresh():
    """The leap lies between the full steps 11 and 14; the forecast for 17 goes on leaping."""
    session = ForecastSession(Schedule(3, 3), TaylorSeer(1), 28)
    assert full_steps(session, leaping) == [0, 1, 2, 5, 8, 11, 14, 17, 18, 19, 20, 23, 26]
    report = session.report(0.0)
    assert [warning for warning in report.warnings if "far worse than the last feature" in warning]
    errors = {row["step"]: row["error"] for row in report.errors}
    assert errors[14] > 0.6
    assert errors[17] > 0.6
    assert max(errors[step] for step in (20, 23, 26)) < 1e-2


def test_a_run_without_a_leap_has_its_full_steps(device):
    def feature(step):
        return 2.0 + torch.sin(step / 4 + torch.linspace(0, 6, 20, device=device)).expand(2, 20)

    session = ForecastSession(Schedule(3, 3), TaylorSeer(2), 28)
    assert full_steps(session, feature) == [*Schedule(3, 3).full_steps(28)]
    assert session.report(0.0).warnings == ()


def test_noise_does_not_keep_a_run_from_being_accelerated():
    """Its forecasts are worse than reuse for good: that is no leap."""
    generator = torch.Generator().manual_seed(0)
    session = ForecastSession(Schedule(6, 3), TaylorSeer(4), 200)
    found = full_steps(session, lambda step: torch.randn(2, 99, generator=generator))
    assert len(Schedule(6, 3).full_steps(200)) <= len(found) <= len(Schedule(6, 3).full_steps(200)) + 3 * 3


def test_errors_that_have_not_come_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(Readback, "ready", False)
    session = ForecastSession(Schedule(3, 3), TaylorSeer(1), 28)
    assert full_steps(session, leaping) == [*Schedule(3, 3).full_steps(28)]
