"""The benchmark in small: what it plans, measures, keeps and shows."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import paper_table
from benchmarks.pages import tables
from benchmarks.pages.results import RESULTS
from benchmarks.paper_table import FEWER, FULL, KEY, Bench, Method, Spec, Table, network_runs, plan
from benchmarks.sampling.jobs import for_tuning, random_prompts
from benchmarks.sampling.metrics import frechet, mean_and_error, psnr, rmse, ssim
from benchmarks.sampling.solvers import adams_bashforth, ancestral, euler
from benchmarks.sampling.subjects import TinyDiT, TinyFlux
from femo_core import FeMo, Schedule, TaylorSeer

TUNED = {sampler: {(order, start): beta + 0.1 * order for order in (1, 2) for start in ("zero", "feature")}
         for sampler, beta in (("euler", -0.45), ("ancestral", 0.55))}


@pytest.fixture(scope="module")
def bench():
    return Bench(TinyFlux(), 1, (0, 1))


@pytest.mark.parametrize("kind", [TinyFlux, TinyDiT])
def test_the_full_plan_has_every_row_promised(kind):
    subject = kind()
    specs = plan(subject, TUNED, full=True)
    keys = [spec.key(subject) for spec in specs]
    assert len(set(keys)) == len(keys)
    assert set(plan(subject, TUNED, full=False)) < set(specs)
    found = {(spec.method.name, spec.method.predictor, spec.interval, spec.cooldown, spec.site, spec.sampler,
              spec.of_steps) for spec in specs}
    predictors = {("FORA", TaylorSeer(0)), *(("TaylorSeer", TaylorSeer(order)) for order in (1, 2, 3, 4))}
    tuned = {("FeMo", FeMo(order, beta=TUNED["euler"][order, start], momentum_start=start))
             for order in (1, 2) for start in ("zero", "feature")}
    paper = ("FeMo", FeMo(1, beta=0.325 if kind is TinyFlux else -0.2))
    for method in predictors | tuned | {paper}:
        for cooldown in (0, 1):
            for interval in range(3, 11):
                assert (*method, interval, cooldown, "hidden", "euler", 50) in found
            for site in ("module", "output"):
                assert (*method, 6, cooldown, site, "euler", 50) in found
    for steps in (20, 28):
        for interval in (2, 3, 4):
            for cooldown in (0, 1):
                assert (*paper, interval, cooldown, "hidden", "euler", steps) in found
                count = network_runs(subject, steps, interval, cooldown)
                assert any(spec.method is FEWER and (spec.steps, spec.of_steps) == (count, steps) for spec in specs)
    for interval in (4, 8):
        assert (*paper, interval, 1, "hidden", "ancestral", 50) in found
    assert any(spec.method.name == "Adapted-FeMo" for spec in specs)
    plain = {spec.steps for spec in specs if spec.method is FEWER and spec.of_steps == 50}
    assert {30, 25, 20, 17, 12, 10, 7} <= plain


def test_tuning_and_report_share_no_class_and_no_seed():
    reported, tuned = random_prompts(0, 500), random_prompts(0, 500, tuning=True)
    assert not {" ".join(p.split()[:2]) for p in reported} & {" ".join(p.split()[:2]) for p in tuned}
    assert for_tuning("red", "ball")
    assert not for_tuning("red", "box")
    assert not set(paper_table.TUNING_SEEDS) & set(paper_table.SEEDS)


def test_a_row_is_measured(bench, monkeypatch):
    monkeypatch.setattr(paper_table, "LIMIT_STEPS", 60)
    row = bench.measure(Spec(Method("TaylorSeer", TaylorSeer(1)), interval=4, cooldown=1))
    assert (row["full_steps"], row["seeds"], row["samples"]) == (15, 2, 2)
    assert row["flops_speedup"] == pytest.approx(50 / 15, rel=0.05)
    assert 0 < row["rmse"] < 0.1
    assert row["psnr"] > 20
    assert 0.8 < row["ssim"] < 1
    assert row["rmse_limit"] > 0
    plain = bench.measure(Spec(FEWER, 15))
    assert (plain["full_steps"], plain["flops_speedup"]) == (15, pytest.approx(50 / 15))
    full = bench.measure(Spec(FULL))
    assert "rmse" not in full
    assert full["rmse_limit"] < plain["rmse_limit"]


def test_the_grid_of_full_steps_is_our_schedules(bench):
    spec = Spec(Method("Euler on the full steps", TaylorSeer(0)), grid_of=Schedule(6, 3, 1))
    _, report = bench.run(spec)
    assert report.network_runs == len(Schedule(6, 3, 1).full_steps(50)) == 11


def test_the_table_goes_on_where_it_was(tmp_path):
    path = tmp_path / "table.csv"
    key = Spec(FULL).key(TinyFlux())
    Table(path).add(key, {"full_steps": 50, "rmse_limit": 0.123456789})
    again = Table(path)
    assert again.rows[key]["rmse_limit"] == "0.12346"
    again.add(key, {"frechet": 1.5})
    row = Table(path).rows[key]
    assert (row["full_steps"], row["frechet"]) == ("50", "1.5")
    assert tuple(row[name] for name in KEY) == key


def orders(solver):
    """Order of convergence on dx/dσ = cos(σ) · x from σ = 2 to 0."""
    errors = []
    for steps in (100, 200):
        sigmas = [2 * (1 - (i / steps) ** 1.5) for i in range(steps + 1)]
        x = solver(lambda i, x, s=sigmas: math.cos(s[i]) * x, torch.ones((), dtype=torch.float64), sigmas)
        errors.append(abs(x.item() - math.exp(-math.sin(2))))
    return math.log2(errors[0] / errors[1])


def test_the_solvers_have_their_orders():
    assert orders(euler) == pytest.approx(1, abs=0.15)
    assert orders(adams_bashforth) == pytest.approx(2, abs=0.2)


def test_adams_bashforth_on_even_steps():
    """v = 0, 1, 4 at steps of −1: the weights are 3/2 and −1/2."""
    x = adams_bashforth(lambda i, _: torch.tensor(float(i**2)), torch.tensor(0.0), [3.0, 2.0, 1.0, 0.0])
    assert x.item() == pytest.approx(-(0 + 1.5 * 1 - 0.5 * 0 + 1.5 * 4 - 0.5 * 1))


@pytest.mark.parametrize("signal", [lambda sigma: 1.0, lambda sigma: 1 - sigma], ids=["noise prediction", "flow"])
def test_the_stochastic_sampler_keeps_the_noise_level_and_ends_on_the_image(signal):
    """Of a black image, x is nothing but noise: its level must be the schedule's at every step, and 0 at the end."""
    sigmas, seen = [0.99, 0.7, 0.4, 0.1, 0.0], []

    def derivative(i, x):
        seen.append(x.std().item())
        return x / sigmas[i]

    start = 0.99 * torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    end = ancestral(signal, seed=0)(derivative, start, sigmas)
    assert seen == pytest.approx(sigmas[:-1], rel=0.01)
    assert end.abs().max() < 1e-5
    again = ancestral(signal, seed=0)(lambda i, x: x / sigmas[i] - 1, start, sigmas)
    assert torch.allclose(again, torch.full_like(again, again[0].item()), atol=1e-4)  # the same noise for all rows


def test_the_metrics():
    a, b = torch.zeros(2, 3, 32, 32), torch.full((2, 3, 32, 32), 0.2)
    assert rmse(a, b) == pytest.approx(0.2)
    assert psnr(a, b) == pytest.approx(20.0)
    assert ssim(a, a) == pytest.approx(1.0)
    assert mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / math.sqrt(3)))
    assert mean_and_error([5.0]) == (5.0, 0.0)


def test_the_frechet_distance_tells_near_from_far():
    from benchmarks.models.classifier import Classifier

    torch.manual_seed(0)
    judge = Classifier().eval().requires_grad_(False)
    real, like, unlike = (torch.rand(300, 3, 32, 32) * 2 - 1, torch.rand(300, 3, 32, 32) * 2 - 1,
                          torch.rand(300, 3, 32, 32) - 1)
    assert frechet(judge, real, real) == pytest.approx(0, abs=1e-3)
    assert frechet(judge, like, real) < 0.5 * frechet(judge, unlike, real)


@pytest.mark.filterwarnings("default")
def test_diffusers_flux_computes_the_same():
    from benchmarks.rivals.caches import DiffusersFlux

    flux = DiffusersFlux()
    bench = Bench(flux, 1, (0,))
    level = flux.levels(50)[10]
    x = flux.start(bench.job, level)
    with torch.inference_mode():
        torch.testing.assert_close(flux.velocity(bench.job, x, level.time), flux.derivative(bench.job, x, level, {}),
                                   rtol=1e-4, atol=1e-4)


def test_the_page_and_the_tables_show_what_the_csv_says():
    rows = tables.Rows(Table(RESULTS / "paper_table.csv").rows.values())
    assert (RESULTS / "tables.md").read_text(encoding="utf-8") == tables.everything(rows)
    page = tables.MEASURED.read_text(encoding="utf-8")
    assert page.count("<!-- table ") == 2
    assert tables.with_tables(page, rows) == page


def test_the_figure(tmp_path):
    tables.figure(tables.Rows(Table(RESULTS / "paper_table.csv").rows.values()), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_trajectory(tmp_path, monkeypatch):
    from benchmarks import trajectory

    monkeypatch.setattr(trajectory, "SAMPLES", 2)
    monkeypatch.setattr("sys.argv", ["trajectory.py", "--out", str(tmp_path / "trajectory.png")])
    trajectory.main()
    assert (tmp_path / "trajectory.png").stat().st_size > 10_000


def test_a_forecast_from_the_true_path_is_exact_at_full_steps_and_on_a_straight_path():
    from benchmarks import trajectory

    path = torch.arange(20.0)[:, None, None, None] * torch.ones(20, 2, 3, 4)
    found = trajectory.forecast(TaylorSeer(1), path, Schedule(4, 2, 1))
    torch.testing.assert_close(found.path, path)
