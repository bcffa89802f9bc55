"""The papers' settings, as SPEC and papers state them."""

from __future__ import annotations

import pytest

from femo_core import FeMo, ScaledTaylor, Schedule, TaylorSeer
from femo_core.presets import CALIBRATED, MEASURED, PAPERS, RAMP


def test_flux():
    preset = PAPERS["FeMo, FLUX, O=1"]
    assert preset.predictor == FeMo(1, beta=0.325)
    assert preset.schedule(6).full_steps(50) == (0, 1, 2, 8, 14, 20, 26, 32, 38, 44)
    adapted = PAPERS["Adapted-FeMo, FLUX, O=1"].predictor
    assert (adapted.beta_min, adapted.beta_max) == (0.2, 0.45)
    assert 0.01 <= adapted.gamma <= 0.015


def test_dit():
    assert PAPERS["FeMo, DiT, O=1"].predictor == FeMo(1, beta=-0.2)
    assert PAPERS["TaylorSeer, DiT, O=4"].predictor == TaylorSeer(4)
    second = PAPERS["Adapted-FeMo, DiT, O=2"].predictor
    assert -0.03 <= second.beta <= -0.01
    assert (second.beta_min, second.beta_max) == (-0.04, 0.0)
    assert 0.001 <= second.gamma <= 0.01


@pytest.mark.parametrize(("family", "counts"), [
    ("FLUX", {3: 18, 4: 14, 5: 12, 6: 10, 7: 9, 8: 8, 9: 8, 10: 7}),
    ("DiT", {3: 18, 4: 14, 5: 11, 6: 10, 7: 8, 8: 8, 9: 7})])
def test_every_preset_has_the_papers_full_steps(family, counts):
    presets = [preset for name, preset in PAPERS.items() if family in name]
    assert presets
    for preset in presets:
        assert {n: len(preset.schedule(n).full_steps(50)) for n in counts} == counts


def test_what_was_measured():
    for family, warmup in (("FLUX", 3), ("DiT", 2)):
        preset = MEASURED[family]
        assert preset.predictor == FeMo(1, beta=0.325, momentum_start="feature")
        assert preset.schedule(6).full_steps(50) == Schedule(6, warmup, 1).full_steps(50)


def test_what_goes_with_a_calibration():
    assert CALIBRATED.predictor == FeMo(1, beta=-0.3)


def test_what_goes_with_a_ramp():
    assert ScaledTaylor(factors=((0, 0.5),)) == RAMP
