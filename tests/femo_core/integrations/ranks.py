"""One process of several that share a small pipeline's tokens, on diffusers' context parallelism over gloo."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from small_pipelines import FLUX, QWEN, WAN, Small, diffusers
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed import scaling
from femo_core import FeMo, Schedule, TaylorSeer
from femo_core.integrations.diffusers import disable_femo, enable_auto, enable_femo, last_report

SMALL = {small.name: small for small in (FLUX, QWEN, WAN)}
ADAPTIVE = {
    "Adapted-FeMo": FeMo(1, gamma=0.05),
    "least squares": FeMo(1, beta=0.0, beta_min=-0.6, beta_max=0.9, adaptation="least_squares")}
PREDICTORS = {"TaylorSeer": TaylorSeer(2), "FeMo": FeMo(1), **ADAPTIVE}
SCHEDULE = Schedule(3, 3, 1)
TIMED = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 4, "joint_attention_dim": 32, "pooled_projection_dim": 16, "axes_dims_rope": (4, 6, 6)}
TOLERANCE = 1.0  # random weights make for forecasts that are far off


@dataclass(frozen=True)
class Case:
    """What to run; `site` "" is the pipeline by itself."""

    model: str
    site: str = ""
    predictor: str = "TaylorSeer"
    tolerance: float = 0.0


CASES = (
    *(Case("Flux", site, predictor) for site in ("hidden", "module", "output")
      for predictor in ("TaylorSeer", "Adapted-FeMo")),
    Case("Flux", "hidden", "FeMo"), *(Case("Flux", site, "least squares") for site in ("hidden", "module")),
    *(Case(model, site, "Adapted-FeMo") for model in ("Qwen-Image", "Wan") for site in ("hidden", "module")),
    *(Case("Flux", site, "FeMo", TOLERANCE) for site in ("hidden", "module", "output")),
    *(Case(model) for model in SMALL),
)


class Messages(TorchDispatchMode):
    """Counts this process's collective calls, and the numbers that it gave to each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = function._schema.name.partition("::")[2].rstrip("_")
        if function.namespace in ("c10d", "_c10d_functional") and kind != "wait_tensor":
            tensors = [args[0]] if isinstance(args[0], torch.Tensor) else args[0]
            self.count[kind] += 1
            self.numbers[kind] += sum(tensor.numel() for tensor in tensors)
        return function(*args, **(kwargs or {}))


def results(ranks: int) -> dict[Case, dict[str, Any]]:
    """Of every case: what the pipeline gave, the full steps, the adapted β, the cache's bytes, and the messages."""
    found: dict[Case, dict[str, Any]] = {}
    for name, small in SMALL.items():
        pipeline = _build(small, ranks)
        found |= {case: _run(small, pipeline, case) for case in CASES if case.model == name}
    return found


def learned_and_used(ranks: int, path: Path) -> list[tuple[Any, Any]]:
    """What the pipeline gave in two runs of `enable_auto`, and the reports."""
    pipeline = _build(FLUX, ranks)
    enable_auto(pipeline.transformer, scheduler=pipeline.scheduler, profile=path, quality=2.0)
    return [(FLUX.run(pipeline, steps=20), last_report(pipeline.transformer)) for _ in range(2)]


def _build(small: Small, ranks: int) -> Any:
    pipeline = small.build()
    if ranks > 1:
        # diffusers asks for the number of accelerators, and there is none: the processes are on the CPU.
        with mock.patch("torch.accelerator.device_count", return_value=1):
            pipeline.transformer.enable_parallelism(config=diffusers.ContextParallelConfig(ulysses_degree=ranks))
    return pipeline


def _run(small: Small, pipeline: Any, case: Case) -> dict[str, Any]:
    if case.site:
        enable_femo(pipeline.transformer, SCHEDULE, PREDICTORS[case.predictor], scheduler=pipeline.scheduler,
                    site=case.site, tolerance=case.tolerance)
    with Messages() as messages:
        result = small.run(pipeline)
    report = last_report(pipeline.transformer)
    disable_femo(pipeline.transformer)
    return {
        "result": result, "full_steps": report.full_steps if report else (),
        "compared": len(report.errors) if report else 0,
        "betas": [row["beta"] for row in report.betas] if report else [],
        "cache_bytes": report.cache_bytes if report else 0,
        "messages": dict(messages.count), "numbers": dict(messages.numbers)}


def main(rank: int, ranks: int, folder: Path) -> None:
    """Writes the results of this process to a file of its own."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks)
    torch.save(results(ranks), folder / f"{rank}.pt")
    torch.save(learned_and_used(ranks, folder / "auto.json"), folder / f"{rank}.auto.pt")
    dist.barrier()
    dist.destroy_process_group()
    scaling.time_steps(rank, ranks, folder / "timed", "cpu", (64,), TIMED, text=8)
