"""What make bench-speed measures, on a network small enough to run here. Times are not looked at."""

from __future__ import annotations

import csv

import pytest
import torch

from benchmarks.models.flux_model import FluxConfig
from benchmarks.speed import speed
from benchmarks.speed.memory_meter import MemoryMeter
from benchmarks.speed.speed_engines import InDiffusers, RandomFlux, Size, Standalone
from femo_core.kernels import eager

SMALL = Size("small", FluxConfig(128, 2, 3, context_dim=64), side=24, text=16)


@pytest.fixture(scope="module")
def flux():
    return RandomFlux(SMALL, torch.device("cpu"), torch.bfloat16)


def test_the_meter_counts_what_is_there_at_a_time():
    before = torch.ones(1000)
    with MemoryMeter() as meter:
        first = torch.ones(1000)
        view = first[10:]
        second = view + 1
        assert meter.now == 4000 + second.nbytes
        del first, view
        third = before.view(10, 100).add_(1)
        assert meter.now == second.nbytes
        del second, third
        assert meter.now == 0
    assert meter.peak == 4000 + 3960


@pytest.mark.parametrize("method", speed.OURS)
@pytest.mark.parametrize("site", speed.SITES)
def test_a_cache_takes_what_its_buffers_take(flux, method, site, monkeypatch):
    monkeypatch.setattr(eager, "PART_OF_A_THREAD", 4096)  # as small beside these features as it is beside large ones
    engine = Standalone(flux)
    plain, _ = speed.peak_of(engine, None)
    trial = next(trial for trial in speed.ours((method,), (4,)) if trial.site == site)
    peak, buffers = speed.peak_of(engine, trial)
    values = {"hidden": 144 * 128, "output": 16 * 24 * 24, "module": (2 * 2 * 144 + 3 * (144 + 16)) * 128}
    assert buffers == 2 * values[site] * trial.cache.predictor.buffer_count
    assert peak - plain <= 1.05 * buffers


def test_rows_have_what_the_file_promises(flux, tmp_path):
    row = speed.Bench(Standalone(flux), SMALL, "CPU").measure(next(speed.ours(("FeMo",), (8,))))
    assert row.flops_speedup == 50 / 8
    assert row.tokens == 16 + 144
    assert min(row.full_ms, row.recording_ms, row.predicted_ms, row.latency_speedup, row.efficiency) > 0
    speed.write([row], tmp_path / "rows.csv")
    (found,) = csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines())
    assert {*found} >= {
        "model", "device", "method", "site", "interval", "order", "batch", "tokens", "full_ms", "recording_ms",
        "predicted_ms", "latency_speedup", "flops_speedup", "efficiency", "peak_mb", "theory_mb"}
    assert "| FeMo |" in speed.report([row], "cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_same_weights_in_diffusers_and_its_caches(flux):
    pytest.importorskip("diffusers")
    engine = InDiffusers(flux)
    assert engine.run(3).ran == (True, True, True)
    lite = next(trial for trial in speed.in_diffusers(engine) if trial.site == "output")
    assert sum(engine.run(20, lite.cache).ran) < 20
    assert all(engine.run(4).ran)  # nothing of it stays
