"""A Gram matrix at other noise levels than it was learned at."""

from __future__ import annotations

import math

import pytest
import torch
from trajectories import flow_levels, gaussian_gram, gram_of

from femo_core import resample_gram, uncovered
from femo_core.noise_levels import reaches


def test_at_its_own_levels_it_stays_what_it_is():
    sigmas = flow_levels(12)
    torch.testing.assert_close(resample_gram(gaussian_gram(sigmas), sigmas, sigmas), gaussian_gram(sigmas))


@pytest.mark.parametrize("steps", [8, 20, 50])
@pytest.mark.parametrize("shift", [3.0, 1.0, 0.5])
def test_features_that_are_smooth_in_sigma_are_found_at_other_levels(steps, shift):
    learned, wanted = flow_levels(40, 1.0), flow_levels(steps, shift)
    found = resample_gram(gaussian_gram(learned), learned, wanted)
    inside = [index for index, sigma in enumerate(wanted[:-1]) if sigma >= learned[-2]]
    true = gaussian_gram(wanted)
    assert (found - true)[inside][:, inside].abs().max() < 0.02 * true.abs().max()


def test_a_cubic_is_found_exactly_by_hand():
    learned, wanted = [1.0, 0.8, 0.5, 0.3, 0.2, 0.0], [0.9, 0.4, 0.25, 0.0]
    def cubic(levels):
        return torch.tensor([[1 + 2 * s - s**2 + 3 * s**3, s**3] for s in levels[:-1]], dtype=torch.float64)
    found = resample_gram(gram_of(cubic(learned)), learned, wanted)
    torch.testing.assert_close(found, gram_of(cubic(wanted)))


def test_ratios_of_noise_to_picture_go_by_their_logarithm():
    learned, wanted = [100.0, 20.0, 5.0, 1.0, 0.2, 0.0], [50.0, 2.0, 0.5, 0.0]
    def line(levels):
        return torch.tensor([[math.log(s), 1.0] for s in levels[:-1]], dtype=torch.float64)
    found = resample_gram(gram_of(line(learned)), learned, wanted)
    torch.testing.assert_close(found, gram_of(line(wanted)))


def test_below_what_was_learned_features_go_on_for_a_step_and_no_more():
    learned = [1.0, 0.75, 0.5, 0.0]
    line = torch.tensor([[1.0], [0.75], [0.5]], dtype=torch.float64)
    found = resample_gram(line @ line.T, learned, [0.5, 0.3, 0.25, 0.1, 0.0])
    torch.testing.assert_close(found.diagonal().sqrt(), torch.tensor([0.5, 0.3, 0.25, 0.25], dtype=torch.float64))


def test_what_is_not_covered_is_told():
    assert uncovered([1.0, 0.75, 0.5, 0.0], [0.9, 0.3, 0.25, 0.1, 0.0]) == (0.1,)
    assert uncovered(flow_levels(20), flow_levels(50)) == ()
    assert len(uncovered(flow_levels(20, 3.0), flow_levels(50, 0.1))) == 9


def test_a_level_that_is_higher_by_rounding_is_reached():
    for shift in (3.16, 0.1, 0.01):
        assert reaches(flow_levels(20), flow_levels(50, shift))
    assert not reaches([0.9, 0.5, 0.0], flow_levels(50))


@pytest.mark.parametrize(("sigmas", "wanted", "message"), [
    ([1.0, 0.5, 0.6, 0.0], [1.0, 0.0], r"sigmas must be finite, 0 or more and fall from step.*got 0.5 before 0.6"),
    ([1.0, 0.6, 0.5, 0.0], [0.5, 0.5], r"to_sigmas must be finite, 0 or more and fall"),
    ([1.0, 0.6, 0.5, 0.0], [math.nan, 0.5], r"to_sigmas must be finite"),
    ([1.0, 0.6, 0.5, 0.0], [0.5], r"to_sigmas must be two levels or more"),
    ([1.0, 0.6, 0.5, 0.3, 0.0], [1.0, 0.0], r"gram must be \(4, 4\), a row for each step; got \(3, 3\)"),
    ([0.6, 0.5, 0.4, 0.0], [1.0, 0.0], r"to_sigmas must not exceed 0.6, the highest level learned; got 1"),
])
def test_what_can_not_be_resampled(sigmas, wanted, message):
    with pytest.raises(ValueError, match=message):
        resample_gram(torch.eye(3), sigmas, wanted)


def test_a_matrix_that_is_not_finite_and_a_single_step_are_refused():
    with pytest.raises(ValueError, match="gram must be finite"):
        resample_gram(torch.eye(3) * math.nan, [1.0, 0.6, 0.5, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="sigmas must be of two steps or more"):
        resample_gram(torch.eye(1), [1.0, 0.0], [1.0, 0.0])
