"""The small models in diffusers, for test_two_hosts.py: `in_diffusers.py FILE` writes what each setting gives."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch

import femo_core
from benchmarks.sampling.subjects import Job, TinyDiT, TinyFlux

SUBJECTS = (TinyFlux, TinyDiT)
SITES = ("hidden", "module", "output")
JOB = Job(("red house day", "blue moon night"), seed=5)
STEPS = 50


@dataclass(frozen=True)
class Setting:
    name: str
    interval: int
    predictor: str = "FeMo"
    arguments: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-4  # of its error: how far the two hosts' may lie from one another


SETTINGS = (
    Setting("in full", 1),
    Setting("TaylorSeer", 4, "TaylorSeer", {"max_order": 2}),
    Setting("FeMo", 6),
    Setting("Adapted-FeMo", 5, arguments={"gamma": 0.015}, tolerance=2e-3),  # its signs may tie
)


def main() -> None:
    from benchmarks.engines.pipelines import Pipeline

    results = {}
    for kind in SUBJECTS:
        pipeline = Pipeline(kind())
        for setting in SETTINGS:
            predictor = getattr(femo_core, setting.predictor)(**setting.arguments)
            schedule = femo_core.Schedule(setting.interval, kind.warmup, 1)
            for site in SITES if setting.interval > 1 else SITES[:1]:
                results[kind.name, setting.name, site], _ = pipeline.run(JOB, STEPS, predictor, schedule, site)
    torch.save(results, sys.argv[1])


if __name__ == "__main__":
    main()
