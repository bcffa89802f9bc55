from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.rivals.forecasters import DividedDifferences, HiCache, Spectrum, spectrum_steps
from femo_core import TaylorSeer


def features(count, seed=0):
    return torch.randn(count, 1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forecast(predictor, recorded, steps, wanted):
    state = predictor.init()
    for feature, step in zip(recorded, steps, strict=True):
        state = predictor.update(state, feature, step)
    return predictor.predict(state, wanted)


def test_hicache_is_taylorseer_with_scaled_hermite_polynomials():
    recorded, sigma, k = features(4), 0.5, 3
    state = TaylorSeer(3).init()
    for feature, step in zip(recorded, (0, 2, 5, 9), strict=True):
        state = TaylorSeer(3).update(state, feature, step)
    x = sigma * k
    hermite = [1, 2 * x, 4 * x**2 - 2, 8 * x**3 - 12 * x]
    expected = sum(sigma**i * hermite[i] / math.factorial(i) * state.buffers[i] for i in range(4))
    torch.testing.assert_close(forecast(HiCache(3, sigma=sigma), recorded, (0, 2, 5, 9), 12), expected)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_divided_differences_are_exact_on_polynomials(order):
    coefficients = features(order + 1)
    steps = (0, 1, 4, 6, 11, 13)
    recorded = [sum(c * (step / 10) ** i for i, c in enumerate(coefficients)) for step in steps]
    expected = sum(c * 1.7**i for i, c in enumerate(coefficients))
    torch.testing.assert_close(forecast(DividedDifferences(order), recorded, steps, 17), expected)


@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_spectrum_is_a_ridge_regression_blended_with_a_line(blend):
    """The regression as least squares on rows that ask for coefficients of 0."""
    recorded, steps, wanted, ridge = features(7), (0, 1, 2, 3, 5, 9, 14), 20, 0.1
    rows = np.polynomial.chebyshev.chebvander(np.array(steps) / 25 - 1, 4)
    rows = np.concatenate((rows, math.sqrt(ridge) * np.eye(5)))
    values = np.concatenate((recorded[:, 0].numpy(), np.zeros((5, 3))))
    fitted = np.polynomial.chebyshev.chebval(wanted / 25 - 1, np.linalg.lstsq(rows, values, rcond=None)[0])
    line = recorded[-1] + (wanted - 14) / (14 - 9) * (recorded[-1] - recorded[-2])
    expected = blend * torch.from_numpy(fitted)[None] + (1 - blend) * line
    torch.testing.assert_close(forecast(Spectrum(ridge=ridge, blend=blend), recorded, steps, wanted), expected)


def test_spectrum_runs_as_often_as_its_authors_say():
    assert len(spectrum_steps(50, 0.75)) == 14
    assert len(spectrum_steps(50, 3.0)) == 10
    assert spectrum_steps(20, 1.0) == (0, 1, 2, 3, 4, 6, 9, 13, 18)


@pytest.mark.parametrize("predictor", [HiCache(2), DividedDifferences(2), Spectrum()])
def test_a_step_recorded_again_replaces_what_was_recorded(predictor):
    first, again = features(4), features(4, seed=1)
    state = predictor.init()
    for feature, step in zip((first[0], first[1], again[1]), (0, 3, 3), strict=True):
        state = predictor.update(state, feature, step)
    once = forecast(predictor, (first[0], again[1]), (0, 3), 5)
    torch.testing.assert_close(predictor.predict(state, 5), once)
