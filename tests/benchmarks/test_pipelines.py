"""The small models in diffusers' pipelines forecast what they do on the standalone host."""

from __future__ import annotations

import pytest
from distance import distance
from hosts_agree import FORECAST, IN_FULL, JOB, STEPS, SUBJECTS, assert_agree

import femo_core
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.subjects import TinyDiT, TinyFlux

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own


def alone(subject, setting):
    schedule = femo_core.Schedule(setting.interval, subject.warmup, 1)
    result, report = sample(subject, JOB, STEPS, setting.predictor_in(femo_core), schedule, site=setting.site)
    return subject.pixels(result) if isinstance(subject, TinyDiT) else result, report


def in_diffusers(pipeline, setting):
    schedule = femo_core.Schedule(setting.interval, pipeline.subject.warmup, 1)
    return pipeline.run(JOB, STEPS, setting.predictor_in(femo_core), schedule, setting.site)


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda subject: subject.name)
def in_full(request):
    """The pipeline, and the full run and its report: standalone and in diffusers."""
    from benchmarks.engines.pipelines import Pipeline

    pipeline = Pipeline(request.param())
    return pipeline, alone(pipeline.subject, IN_FULL), in_diffusers(pipeline, IN_FULL)


@pytest.mark.parametrize("setting", FORECAST, ids=str)
def test_diffusers_forecasts_what_the_standalone_host_does(in_full, setting):
    """Same noise, weights, steps and settings."""
    pipeline, full, full_there = in_full
    forecast, forecast_there = alone(pipeline.subject, setting), in_diffusers(pipeline, setting)
    assert_agree(setting, "diffusers", (full[0], forecast[0]), (full_there[0], forecast_there[0]))
    for (result, expected), (result_there, report) in ((full, full_there), (forecast, forecast_there)):
        assert distance(result_there, result) < 1e-4
        assert report.full_steps == expected.full_steps
        if isinstance(pipeline.subject, TinyFlux):  # DiT's streams are one batch in its pipeline, their errors one mean
            assert [row["error"] for row in report.errors] == pytest.approx(
                [row["error"] for row in expected.errors], abs=1e-4)
            assert [row["beta"] for row in report.betas] == [pytest.approx(row["beta"]) for row in expected.betas]
