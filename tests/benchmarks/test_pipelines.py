"""The small models in diffusers' pipelines forecast what they do on the standalone host."""

from __future__ import annotations

import pytest
from hosts_agree import FORECAST, IN_FULL, JOB, STEPS, SUBJECTS, relative

import femo_core
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.subjects import TinyDiT, TinyFlux

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda subject: subject.name)
def pipeline(request):
    from benchmarks.engines.pipelines import Pipeline

    return Pipeline(request.param())


@pytest.mark.parametrize("setting", [IN_FULL, *FORECAST], ids=str)
def test_diffusers_forecasts_what_the_standalone_host_does(pipeline, setting):
    """Same noise, weights, steps and settings."""
    subject, predictor = pipeline.subject, setting.predictor_in(femo_core)
    schedule = femo_core.Schedule(setting.interval, subject.warmup, 1)
    alone, expected = sample(subject, JOB, STEPS, predictor, schedule, site=setting.site)
    result, report = pipeline.run(JOB, STEPS, predictor, schedule, setting.site)
    if isinstance(subject, TinyDiT):
        alone = subject.pixels(alone)
    assert relative(result, alone) < 1e-4
    assert report.full_steps == expected.full_steps
    if isinstance(subject, TinyFlux):  # DiT's two streams are one batch in its pipeline, and their errors one mean
        assert [row["error"] for row in report.errors] == pytest.approx(
            [row["error"] for row in expected.errors], abs=1e-4)
        assert [row["beta"] for row in report.betas] == [pytest.approx(row["beta"]) for row in expected.betas]
