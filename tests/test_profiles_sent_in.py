"""Profiles of real models that come with the pack: benchmarks/results/profiles/README.md says what one must be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from femo_core import QUALITIES, Profile
from femo_core.profiles.quality import by_recording

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results" / "profiles"
SENT_IN = sorted(FOLDER.glob("*.json"))


def check(path: Path) -> None:
    profile = Profile.from_json(path.read_bytes())
    kind, *_, digest = re.sub(r"[^\w, ]", "", profile.model).split(", ")
    assert re.fullmatch(rf"{kind}-{digest}(-\d+)?\.json", path.name), "it is not named as the pack looks for it"
    assert path.stat().st_size < 500_000
    for recording in profile.recordings:
        assert not recording.stochastic, "its sampler draws noise anew"
        assert recording.steps >= 20, "it is of too few steps"
        assert recording.sigmas[-1] == 0.0, "it does not go down to no noise"
        flow = recording.signals[0] != recording.signals[-1]
        assert recording.sigmas[0] > (0.99 if flow else 10), "it does not start at the highest noise"
        for steps in (8, 20, 50):
            top = recording.sigmas[0]
            sigmas = [top * (1 - step / steps) for step in range(steps + 1)]
            signals = [1 - sigma if flow else 1.0 for sigma in sigmas]
            for quality in QUALITIES.values():
                plan = by_recording(recording, sigmas, signals, quality)
                assert plan.reason or len(plan.schedule.full_steps(steps)) < steps


@pytest.mark.parametrize("path", SENT_IN, ids=lambda path: path.name)
def test_one_that_was_sent_in(path):
    check(path)


def test_the_check_itself(tmp_path):
    """On a path through two dimensions, which turns faster at high noise."""
    import math

    from femo_core import Recording

    sigmas = [1 - step / 50 for step in range(51)]
    angles = [3 * sigma**2 for sigma in sigmas[:-1]]
    recording = Recording(tuple(sigmas), tuple(1 - sigma for sigma in sigmas),
                          tuple(tuple(math.cos(a - b) for b in angles) for a in angles))
    path = tmp_path / "Flux-0123456789ab.json"
    path.write_text(Profile("Flux, Flux, FLUX, 0123456789ab", (recording,)).to_json())
    check(path)
    with pytest.raises(AssertionError, match="named"):
        check(path.rename(tmp_path / "flux.json"))
