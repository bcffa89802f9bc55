"""The small models in diffusers' pipelines forecast what they do on the standalone host."""

from __future__ import annotations

import pytest

from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.subjects import Job, TinyDiT, TinyFlux
from femo_core import FeMo, Schedule, TaylorSeer

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own

JOB = Job(("red house day", "blue moon night"), seed=5)


@pytest.fixture(scope="module", params=[TinyFlux, TinyDiT], ids=lambda subject: subject.name)
def pipeline(request):
    from benchmarks.engines.pipelines import Pipeline

    return Pipeline(request.param())


@pytest.mark.parametrize(("predictor", "interval", "site"), [
    (TaylorSeer(1), 1, "hidden"),
    *((*setting, site) for site in ("hidden", "module", "output")
      for setting in ((TaylorSeer(2), 4), (FeMo(1), 6), (FeMo(1, gamma=0.015), 5)))])
def test_diffusers_forecasts_what_the_standalone_host_does(pipeline, predictor, interval, site):
    """Same noise, weights, steps and settings."""
    subject = pipeline.subject
    schedule = Schedule(interval, subject.warmup, 1)
    alone, expected = sample(subject, JOB, 20, predictor, schedule, site=site)
    result, report = pipeline.run(JOB, 20, predictor, schedule, site)
    if isinstance(subject, TinyDiT):
        alone = subject.pixels(alone)
    assert ((result - alone).norm() / alone.norm()).item() < 1e-4
    assert report.full_steps == expected.full_steps
    if isinstance(subject, TinyFlux):  # DiT's two streams are one batch in its pipeline, and their errors one mean
        assert [row["error"] for row in report.errors] == pytest.approx(
            [row["error"] for row in expected.errors], abs=1e-4)
        assert [row["beta"] for row in report.betas] == [pytest.approx(row["beta"]) for row in expected.betas]
