from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from benchmarks.calibration.adaptation import Setting, compared, table
from benchmarks.sampling.solvers import ancestral, euler

SIGMAS = (4.0, 2.0, 1.0, 0.5, 0.0)


def to_an_image(step, x):
    """The noise that is in x, were the image 3 everywhere and the whole of it known."""
    return (x - 3.0) / SIGMAS[step]


def test_renewing_no_noise_is_eulers_method():
    start = torch.randn(1, 100, generator=torch.Generator().manual_seed(1))

    def bent(step, x):
        return to_an_image(step, x) + torch.sin(x)

    kept = ancestral(lambda _: 1.0, 0, renewed=0.0)(bent, start, SIGMAS)
    torch.testing.assert_close(kept, euler(bent, start, SIGMAS))


@pytest.mark.parametrize("renewed", [0.3, 1.0])
def test_the_noise_keeps_its_strength_and_so_much_of_itself(renewed):
    noise, seen = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(1)), []

    def derivative(step, x):
        seen.append(to_an_image(step, x))
        return seen[-1]

    ancestral(lambda _: 1.0, 0, renewed=renewed)(derivative, 3.0 + SIGMAS[0] * noise, SIGMAS)
    for before, after in pairwise(seen):
        assert after.std().item() == pytest.approx(1.0, abs=0.02)
        assert (before * after).mean().item() == pytest.approx((1 - renewed) ** 0.5, abs=0.02)


class Small:
    name, preset = "small", "DiT"


def test_ratios_are_to_the_best_of_the_grid():
    setting = Setting(Small(), "stochastic", 4)
    errors = dict.fromkeys(setting.grid, 0.5) | {setting.grid[1]: 0.2}
    errors |= dict.fromkeys(compared(setting.subject).values(), 0.3)
    *_, row, mean, worst = table({setting: errors}).splitlines()
    assert "0.2000 (β=0.2, zero)" in row
    for line in (row, mean, worst):
        assert line.count("1.50") == len(compared(setting.subject))
