"""`make gpu`, gone through on a CPU. Its times mean nothing here and are not looked at."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.gpu import gpu_page, gpu_stages, on_gpu
from benchmarks.gpu.gpu_page import Found
from benchmarks.pages.tables import MEASURED, RESULTS

pytestmark = pytest.mark.filterwarnings("default")  # diffusers and the profiler have their own

KINDS = {"checks": {"check"}, "profile": {"copy", "step"}, "flux": {"row"}, "kernels": {"sum"},
         "narrow": {"row", "graph"}}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All stages' findings, each in this process."""
    found = Found(tmp_path_factory.mktemp("gpu") / "gpu_dry.jsonl")
    found.add("device", "device", name="a CPU", torch=torch.__version__, cuda=None, bars={})
    with torch.inference_mode():
        for name, stage in gpu_stages.STAGES.items():
            stage(gpu_stages.DRY, found)
            found.add(name, "end", how="done", seconds=1.0)
    return found


def test_every_stage_finds_what_it_looks_for(found):
    lines = found.lines()
    for stage, kinds in KINDS.items():
        seen = {line["kind"] for line in lines if line["stage"] == stage}
        assert kinds <= seen, (stage, seen)
    assert all(check["ok"] for check in gpu_page.of(lines, "checks", "check"))
    rows = on_gpu.rows_of(gpu_page.of(lines, "flux", "row"))
    assert {(row.site, row.interval, row.order) for row in rows if row.engine == "standalone"} == {
        (site, interval, order) for site in ("hidden", "output", "module") for interval in (4, 8) for order in (1, 2)}
    others = {row.method for row in rows if row.engine == "diffusers"}
    others |= {line["what"] for line in gpu_page.of(lines, "flux", "missing")}
    assert "cache-dit DBCache+TaylorSeer" in others or "diffusers' TaylorSeer and cache-dit" in others
    assert all(row.flops_speedup == {8: 50 / 8, 4: 50 / 14}[row.interval] for row in rows
               if row.engine == "standalone")
    engines = {line["engine"] for line in gpu_page.of(lines, "kernels", "sum")}
    assert engines == {"PyTorch", "torch.compile"}  # and on a GPU "fused"


def test_the_page_shows_all_of_it(found, tmp_path):
    text = gpu_page.page(found.lines())
    for title in gpu_page.TITLES.values():
        assert f"## {title}" in text
    assert "cache-dit" in text  # its rows, or that it is missing
    assert "a gated forecast" in text
    on_gpu.publish(found, tmp_path, "dry")
    assert (tmp_path / "gpu_dry.md").read_text(encoding="utf-8") == text
    assert "latency_speedup" in (tmp_path / "latency_dry.csv").read_text(encoding="utf-8")


def test_the_compiled_sums_are_the_kernels_own():
    """What is timed beside each other gives the same."""
    setting = gpu_stages.DRY
    for name, (ours, plain, _) in gpu_stages.SUMS.items():
        torch.manual_seed(0)
        stack, feature, gate, out = gpu_stages._inputs(setting, (2, 5, 8))
        others = stack.clone(), feature, gate, torch.empty_like(out)
        torch.testing.assert_close(
            ours(gpu_stages.eager, stack, feature, gate, out), plain(*others), msg=name, check_stride=False)


def test_a_stage_that_fails_or_takes_too_long_costs_the_others_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "sys", type(sys)("sys"))
    script = tmp_path / "stage.py"
    script.write_text("import sys, time\nprint('as it is')\nif 'profile' in sys.argv: time.sleep(60)\nsys.exit(3)\n",
                      encoding="utf-8")
    on_gpu.sys.executable = sys.executable
    monkeypatch.setattr(on_gpu, "THIS", (str(script),))
    found = Found(tmp_path / "gpu.jsonl")
    found.add("device", "device", name="a CPU", torch="2", cuda=None)
    on_gpu.run_stages(found, ["profile", "kernels"], {"profile": 2, "kernels": 20}, dry=True)
    ends = {line["stage"]: line for line in found.lines() if line["kind"] == "end"}
    assert (ends["profile"]["how"], ends["kernels"]["how"]) == ("out of time", "failed")
    assert "as it is" in ends["kernels"]["said"]
    text = gpu_page.page(found.lines())
    assert "**Out of time**" in text
    assert "**Not run**" in text


def test_a_line_that_was_cut_off_is_left_out_and_a_stage_is_made_anew(tmp_path):
    found = Found(tmp_path / "gpu.jsonl")
    found.add("flux", "row", row=1)
    found.add("narrow", "row", row=2)
    with found.path.open("a", encoding="utf-8") as file:
        file.write('{"stage": "flux", "ki')
    assert [line["row"] for line in found.lines()] == [1, 2]
    found.forget("flux")
    assert [line["row"] for line in found.lines()] == [2]


def test_the_whole_ends_within_six_minutes():
    assert sum(on_gpu.LIMITS.values()) <= 360
    assert on_gpu.LIMITS.keys() == gpu_stages.STAGES.keys() == gpu_page.TITLES.keys()


def test_without_a_gpu_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["on_gpu.py"])
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU that PyTorch sees"):
        on_gpu.main()


def test_the_page_has_the_figures_that_were_taken_or_says_that_none_were():
    text = MEASURED.read_text(encoding="utf-8")
    taken = sorted(RESULTS.glob("gpu_*.jsonl"))
    slug = taken[0].stem.removeprefix("gpu_") if taken else ""
    lines = [json.loads(line) for line in taken[0].read_text(encoding="utf-8").splitlines()] if taken else []
    assert gpu_page.with_figures(text, lines, slug) == text
    assert "<!-- gpu -->" in text
