"""`make demo`: the tiny Flux sampled in full, with fewer steps, and with its features forecast, without ComfyUI.

Prints a table and writes contact_sheet.png (the pictures) and betas.png (Adapted-FeMo's β) to out/demo.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import matplotlib
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.sampling.forecasting import count_flops, sample
from benchmarks.sampling.metrics import psnr
from benchmarks.sampling.recording import record
from benchmarks.sampling.subjects import Job, TinyFlux
from femo_core import Quality, Recording, RunReport, Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor
from femo_core.presets import PAPERS
from femo_core.profiles.quality import by_recording
from femo_core.schedule import AbstractSchedule

matplotlib.use("Agg")
from matplotlib import pyplot

STEPS = 50
SPEEDUPS = (2.0, 3.0, 4.0, 6.0)
PROMPTS = (
    "red house day", "green tree paper", "yellow star night", "pink heart paper", "orange fish day", "cyan cup paper",
    "purple flower grass", "blue moon day", "red ball grass", "orange house night", "blue fish paper",
    "pink flower day",
)
LEARNED = Job(("green house night", "yellow fish grass", "purple cup day", "cyan ball night"), seed=1)
PAPERS_SETTINGS = ("TaylorSeer, FLUX, O=2", "FeMo, FLUX, O=1", "Adapted-FeMo, FLUX, O=1")


@dataclass
class Row:
    name: str
    pixels: Tensor  # (B, 3, 64, 64), −1 … 1
    report: RunReport
    psnr: float  # dB to the full run, mean over the samples
    flops_speedup: float
    wall_speedup: float


Planned: TypeAlias = tuple[str, int, AbstractPredictor, AbstractSchedule]


def plan(steps: int = STEPS, speedups: Sequence[float] = SPEEDUPS, known: Recording | None = None) -> list[Planned]:
    """Name, steps, predictor and schedule of every run; the first is the full one.

    known: what a full run of other prompts told, that FeMo Auto goes by. The papers' interval is the one that gives
    nearest as many full steps.
    """
    everything = Schedule(interval=1)
    runs: list[Planned] = [("full", steps, TaylorSeer(1), everything)]
    for speedup in speedups:
        budget = round(steps / speedup)
        if known:
            auto = by_recording(known, known.sigmas, known.signals, Quality(0.0, speedup))
            runs.append((f"FeMo Auto, {speedup:g}×", steps, auto.predictor, auto.schedule))
        runs.append((f"{budget} steps only", budget, TaylorSeer(1), everything))
        for name in PAPERS_SETTINGS:
            preset = PAPERS[name]
            interval = min(range(2, steps), key=lambda n: abs(len(preset.schedule(n).full_steps(steps)) - budget))
            runs.append((f"{name.replace(', FLUX', '')}, N={interval}", steps, preset.predictor,
                         preset.schedule(interval)))
    return runs


def learned(steps: int) -> Recording:
    """From a full run of prompts that are not drawn."""
    return record(TinyFlux(), LEARNED, steps).told


def run_all(runs: Sequence[Planned]) -> list[Row]:
    """The pictures and figures of a `plan`."""
    subject, job = TinyFlux(), Job(PROMPTS)
    flops = count_flops(subject, job)
    sample(subject, job, 2, TaylorSeer(1), Schedule(1))  # warms up the allocator and the thread pool
    rows: list[Row] = []
    with tqdm(total=sum(steps for _, steps, _, _ in runs), unit="step") as progress:
        for name, steps, predictor, schedule in runs:
            progress.set_description(name.ljust(24))
            result, report = sample(
                subject, job, steps, predictor, schedule, on_step=lambda _: progress.update())
            rows.append(measured(name, subject.pixels(result), report, flops, rows[0] if rows else None))
    return rows


def measured(name: str, pixels: Tensor, report: RunReport, flops: tuple[int, int], full: Row | None) -> Row:
    """A run beside the `full` one (None if it is that one); flops of a full and of a predicted step."""
    reference = full.report if full else report
    spent = report.network_runs * flops[0] + report.network_runs_saved * flops[1]
    return Row(
        name, pixels, report,
        psnr=psnr(pixels, full.pixels) if full else float("inf"),
        flops_speedup=reference.network_runs * flops[0] / spent,
        wall_speedup=reference.seconds / report.seconds,
    )


def table(rows: list[Row]) -> str:
    lines = ["| run | full steps | times less computing | times faster | likeness to the full run (PSNR) |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        quality = "–" if row.psnr == float("inf") else f"{row.psnr:.1f} dB"
        full_steps = f"{row.report.network_runs} of {row.report.total_steps}"
        lines.append(
            f"| {row.name} | {full_steps} | {row.flops_speedup:.2f}× | {row.wall_speedup:.2f}× | {quality} |")
    return "\n".join(lines)


def contact_sheet(rows: list[Row], path: Path) -> None:
    figure, axes = pyplot.subplots(len(rows), 1, figsize=(9, 0.63 * len(rows)))
    for axis, row in zip(axes, rows, strict=True):
        strip = torch.cat(list(row.pixels), dim=2).movedim(0, -1)
        axis.imshow(((strip + 1) / 2).numpy())
        label = row.name if row.psnr == float("inf") else f"{row.name}\n{row.psnr:.1f} dB, {row.flops_speedup:.1f}×"
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.subplots_adjust(left=0.2, right=0.995, top=0.995, bottom=0.005, hspace=0.04)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def beta_chart(rows: list[Row], path: Path) -> None:
    """β of every sample at every full step that adapted it."""
    adapted = [row for row in rows if row.report.betas]
    figure, axes = pyplot.subplots(1, len(adapted), figsize=(10, 3), sharey=True, squeeze=False)
    for axis, row in zip(axes[0], adapted, strict=True):
        steps = [entry["step"] for entry in row.report.betas]
        for i in range(len(row.pixels)):
            axis.plot(steps, [entry["beta"][i] for entry in row.report.betas], marker=".", linewidth=0.8)
        axis.set(title=row.name, xlabel="step", xlim=(0, row.report.total_steps))
    axes[0][0].set_ylabel("β, one line a sample")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--speedups", type=float, nargs="+", default=SPEEDUPS)
    arguments.add_argument("--out", type=Path, default=Path("out/demo"))
    options = arguments.parse_args()
    rows = run_all(plan(options.steps, options.speedups, learned(options.steps)))
    options.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, options.out / "contact_sheet.png")
    beta_chart(rows, options.out / "betas.png")
    (options.out / "table.md").write_text(table(rows) + "\n")
    print(f"\n{len(PROMPTS)} drawings in {options.steps} steps by Euler's method. Full steps: the network ran. "
          f"FeMo Auto has learned from other drawings.\n\n{table(rows)}\n")
    print(f"pictures: {options.out / 'contact_sheet.png'}, β: {options.out / 'betas.png'}")


if __name__ == "__main__":
    main()
