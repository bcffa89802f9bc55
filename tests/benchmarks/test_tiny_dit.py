"""The tiny DiT: its file, its noise levels, what it draws, and what forecasting does to it."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from benchmarks.models.tiny_dit import CHECKPOINT, CLASSES, NULL_CLASS, classes_of, ddim_timesteps, labels_of, sigmas_of
from benchmarks.sampling.forecasting import count_flops, sample
from benchmarks.sampling.metrics import psnr
from benchmarks.sampling.subjects import Job, TinyDiT
from femo_core import FeMo, Schedule, TaylorSeer

JOB = Job(("red house day", "green tree paper", "blue moon night"), seed=3)


@pytest.fixture(scope="module")
def subject():
    return TinyDiT()


@pytest.fixture(scope="module")
def full(subject):
    return subject.pixels(sample(subject, JOB, 50, TaylorSeer(1), Schedule(1))[0])


@pytest.fixture(scope="module")
def reused(subject, full):
    """PSNR of reuse, by site."""
    return functools.cache(lambda site: psnr(subject.pixels(
        sample(subject, JOB, 50, TaylorSeer(0), Schedule(4, 2, 1), site=site)[0]), full))


def test_the_checkpoint_is_small_and_its_report_good_enough():
    assert CHECKPOINT.stat().st_size <= 8e6
    report = json.loads(CHECKPOINT.with_suffix(".json").read_text())
    assert report["minutes"] < 60
    assert report["sample_thing_accuracy"] >= 0.9
    assert report["sample_colour_accuracy"] >= 0.9


def test_it_learned_the_variance(subject):
    """Between its bounds, and not at one of them everywhere."""
    x, t, labels = torch.randn(2, 3, 32, 32), torch.tensor([100, 500]), torch.tensor([1, NULL_CLASS])
    with torch.inference_mode():
        variance = subject.model(x, t, labels)[:, 3:]
    assert variance.abs().quantile(0.9) < 1.5
    assert variance.std() > 0.01


def test_classes():
    assert len(CLASSES) == NULL_CLASS == 80
    assert classes_of(JOB.prompts).tolist() == [2, 33, 56]
    assert labels_of(torch.tensor([[0, 8 + 2, 18]])).tolist() == [2]


@pytest.mark.parametrize("steps", [50, 25, 20, 12, 10, 7])
def test_the_noise_levels_are_ddims(steps):
    timesteps = ddim_timesteps(steps)
    assert len(timesteps) == steps
    assert (timesteps[:-1] > timesteps[1:]).all()
    sigmas = sigmas_of(timesteps)
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0.0


def test_the_full_run_draws_what_it_was_told(full):
    red, green, blue = full[0, :, 12:22, 12:20].mean((1, 2))
    assert red > green + 0.2
    assert red > blue + 0.2


@pytest.mark.parametrize("site", ["hidden", "module", "output"])
@pytest.mark.parametrize("predictor", [TaylorSeer(1), FeMo(1, beta=-0.2), FeMo(1, beta=-0.2, gamma=0.01, beta_min=-0.4,
                                                                               beta_max=0.0)])
def test_a_forecast_run_skips_what_it_should_and_is_close(subject, full, predictor, site, reused):
    result, report = sample(subject, JOB, 50, predictor, Schedule(4, 2, 1), site=site)
    assert (report.network_runs, report.network_runs_saved) == (14, 36)
    assert psnr(subject.pixels(result), full) > reused(site) + 2


def test_interval_one_is_bit_equal(subject, full):
    result, _ = sample(subject, JOB, 50, FeMo(2), Schedule(1))
    assert torch.equal(subject.pixels(result), full)


@pytest.mark.parametrize(("site", "share"), [("output", 0.0), ("hidden", 0.02), ("module", 0.03)])
def test_a_predicted_step_costs_next_to_nothing_of_a_full_one(subject, site, share):
    full, predicted = count_flops(subject, JOB, site)
    assert predicted <= share * full


def test_flops_are_those_of_the_matrices(subject):
    """A linear layer takes 2 · in · out a token, attention 4 · tokens² · width a block; both streams."""
    config, tokens = subject.model.config, 64
    d = config.hidden
    block = tokens * 2 * 12 * d * d + 4 * tokens**2 * d + 2 * 6 * d * d
    embedders = tokens * 2 * 48 * d + 2 * (256 * d + d * d)
    head = tokens * 2 * d * 96 + 2 * 2 * d * d
    full, _ = count_flops(subject, Job(JOB.prompts[:1]))
    assert full == 2 * (config.depth * block + embedders + head)
