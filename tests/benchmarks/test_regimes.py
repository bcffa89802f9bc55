"""The test-bed of noise regimes: levels, others' rules, one cell from end to end, and the page."""

from __future__ import annotations

import csv
import io
import math
from itertools import pairwise

import pytest
import torch

from benchmarks import regimes
from benchmarks.models.scenes import draw_scenes
from benchmarks.pages import real_models, regimes_page
from benchmarks.rivals import regime_rivals
from benchmarks.sampling.recording import Recording
from benchmarks.sampling.regime_subjects import MODELS, REGIMES, Regime
from benchmarks.sampling.solvers import dpmpp_2m, euler, of_diffusers

SMALL = {"SAMPLES": 1, "LEARNED": 1, "LIMIT_STEPS": 6, "ELSEWHERE": {"tuned, learned at 20 steps": 6}}


@pytest.fixture(scope="module")
def subjects():
    return {name: make() for name, make in MODELS.items()}


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_levels_fall_and_a_shift_multiplies_noise_over_picture(regime, subjects):
    subject = subjects[regime.model]
    levels, plain = regime.levels(subject, 20), Regime(regime.model, 1).levels(subject, 20)
    sigmas = [level.sigma for level in levels]
    assert all(before > after for before, after in pairwise(sigmas))
    for level, other in zip(levels[1:], plain[1:], strict=True):
        def ratio(sigma):
            return sigma / subject.signal(sigma)
        assert ratio(level.sigma) == pytest.approx(regime.shift * ratio(other.sigma), rel=1e-6)
    assert sigmas[0] == pytest.approx(plain[0].sigma)
    assert all(before >= after >= 0 for before, after in pairwise(level.time for level in levels))


def test_scenes_are_the_same_for_a_seed():
    images, words = draw_scenes(3, seed=5)
    again, _ = draw_scenes(3, seed=5)
    assert (images == again).all()
    assert images.shape == (3, 64, 64, 3)
    assert words.shape == (3, 2)
    assert images.std() > 10


def test_solvers_of_second_order_do_better_than_euler_on_what_has_an_answer():
    """Gaussian data of standard deviation 0.5 under a flow: x = noise · √((1 − σ)² s² + σ²)."""
    def size(sigma):
        return math.sqrt((1 - sigma) ** 2 * 0.25 + sigma**2)

    def signal(sigma):
        return 1 - sigma

    def velocity(step, x):
        return x * (sigmas[step] - signal(sigmas[step]) * 0.25) / size(sigmas[step]) ** 2
    sigmas = [1 - step / 12 for step in range(13)]
    schedulers = {name: of_diffusers(scheduler, signal) for name, scheduler in regimes.MULTISTEP.items()}
    errors = {name: abs(float(solve(velocity, torch.ones(1, 1, 1), sigmas)) - 0.5)
              for name, solve in {"euler": euler, "dpmpp_2m": dpmpp_2m(signal), **schedulers}.items()}
    assert all(error < 0.3 * errors["euler"] for name, error in errors.items() if name != "euler"), errors


@pytest.fixture(scope="module")
def path():
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0, 1, 20)[:, None, None, None, None]
    v = torch.sin(5 * times**2 + torch.randn(1, 2, 3, 8, 8, generator=generator))
    sigmas = [1 - step / 20 for step in range(21)]
    gram = v.flatten(1).double() @ v.flatten(1).double().T / v[0].numel()
    x = v.cumsum(0) + torch.randn(1, 2, 3, 8, 8, generator=generator)
    return Recording(x[-1], x, v, gram, sigmas, [1 - sigma for sigma in sigmas])


@pytest.mark.parametrize("budget", [4, 7, 12])
def test_every_rival_runs_the_network_as_often_as_all(path, budget):
    found = [regime_rivals.easy_cache(path, budget), regime_rivals.sea_cache(path, budget),
             *(regime_rivals.dp_cache(path, budget, order).steps for order in (1, 2)),
             regime_rivals.mean_cache(path, budget).steps]
    found += [choice.steps for choice in regime_rivals.papers_choices(3, 20, budget).values()]
    if choice := regime_rivals.spectrum(20, budget):
        found.append(choice.steps)
    for steps in found:
        assert steps[0] == 0
        assert len(steps) == budget
        assert all(before < after < 20 for before, after in pairwise(steps))


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(regimes, name, value)
        return [row for regime in (Regime("scenes", 0.5), Regime("tiny DiT", 0.3))
                for row in regimes.measure(regime, 6, regimes.limit_of(regime), {4: regimes.missing(regime, 6, 4, ())})]


def test_one_cell_has_every_row(measured):
    rows = {row["row"]: row for row in measured if row["model"] == "scenes"}
    assert {"plain, euler", "plain, dpmpp_2m", "EasyCache", "SeaCache", "DPCache, O=1", "MeanCache", "Ramp",
            "calibrated", "tuned", "tuned, tried out", "tuned, learned at 20 steps"} <= rows.keys()
    assert all(float(row["rmse"]) >= 0 and int(row["runs"]) >= 4 for row in rows.values())
    assert rows["plain, euler"]["rmse"] == rows["plain, euler"]["plain"]


def test_it_goes_on_with_the_rows_that_are_missing():
    regime = Regime("tiny DiT", 0.03)
    assert regimes.missing(regime, 8, 4, regimes.missing(regime, 8, 4, {"Ramp"})) == {"Ramp"}


def test_what_is_learned_elsewhere_is_left_out_where_it_does_not_reach():
    regime = Regime("tiny DiT", 1)
    assert "tuned, learned at 20 steps" not in regimes.missing(regime, 50, 14, ())
    assert "tuned, learned at 50 steps" in regimes.missing(regime, 50, 14, ())
    for shift in (3.16, 0.1):  # whose highest level is 1 but for rounding
        assert "tuned, learned at 20 steps" in regimes.missing(Regime("tiny Flux", shift), 50, 14, ())


def test_the_page_ranks_what_was_measured(measured):
    file = io.StringIO()
    writer = csv.DictWriter(file, regimes.COLUMNS)
    writer.writeheader()
    writer.writerows(measured)
    file.seek(0)
    cells = regimes_page.cells_of(csv.DictReader(file))
    assert set(cells) == {("scenes", 0.5, 6, 4), ("tiny DiT", 0.3, 6, 4)}
    tables = regimes_page.tables(cells)
    assert all(name in tables[1] for name in regimes_page.SHOWN)
    assert regimes_page.summary([0.5, 2.0]) == "1.000 / 2.00"


def test_distances_to_real_models_are_by_hand():
    assert real_models.distance([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert real_models.distance([2.0, 2.0], [1.0, 4.0]) == pytest.approx(2.0)
    assert real_models.distance([1.0, 2.0], [3.0, 6.0]) == pytest.approx(1.0)
    assert real_models.size([1.0, 2.0], [3.0, 6.0]) == pytest.approx(3.0)
    assert real_models.first_fifth((0, 1, 9, 10, 40), 50) == "60%"
    assert real_models.apart((0, 5), (0, 10), 50) == 5.0


def test_every_published_figure_has_its_source():
    for each in (*real_models.DATA["changes"], *real_models.DATA["norm_ratios"], *real_models.DATA["full_steps"]):
        assert each["source"].startswith("github.com/")
