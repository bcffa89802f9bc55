"""`make demo`: the tiny Flux sampled in full, by FeMo Auto, in fewer steps and by the papers' methods, without ComfyUI.

Prints a table and writes short.png (three rows of pictures), contact_sheet.png (all), betas.png (Adapted-FeMo's β) and
table.md to out/demo. With --pages they also go to benchmarks/results and docs/measured.md, which README.md shows.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import matplotlib
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.forecasting import count_flops, sample
from benchmarks.sampling.metrics import RANGE, rmse
from benchmarks.sampling.recording import record
from benchmarks.sampling.regime_subjects import Regime
from benchmarks.sampling.subjects import Job, TinyFlux
from femo_core import Quality, Recording, RunReport, Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor
from femo_core.presets import PAPERS
from femo_core.profiles.quality import by_recording
from femo_core.schedule import AbstractSchedule

matplotlib.use("Agg")
from matplotlib import pyplot

STEPS = 50
SHIFT = 1.0  # of the noise levels: at it early steps matter as much as searches find on FLUX.1-dev; regime_subjects.py
SPEEDUPS = (2.0, 3.0, 4.0, 6.0)
PROMPTS = (
    "red house day", "green tree paper", "yellow star night", "pink heart paper", "orange fish day", "cyan cup paper",
    "purple flower grass", "blue moon day", "red ball grass", "orange house night", "blue fish paper",
    "pink flower day",
)
LEARNED = Job(("green house night", "yellow fish grass", "purple cup day", "cyan ball night"), seed=1)
PAPERS_SETTINGS = ("TaylorSeer, FLUX, O=2", "FeMo, FLUX, O=1", "Adapted-FeMo, FLUX, O=1")
AUTO, PLAIN = "FeMo Auto", "plain steps"
SHOWN = 6  # drawings of each row in the pictures
SHORT = 3.0  # times less computing, of the short picture
AMPLIFIED = 10  # how many times as strong pictures show what has changed
MEASURED = Path(__file__).parents[1] / "docs" / "measured.md"
WORDS = (
    "{count} drawings in {steps} steps by a small Flux, on this machine's CPU. The full run computes every step. FeMo "
    "Auto, which has\nlearned from one full run of other drawings, computes some and forecasts the rest. Plain steps: "
    "the same without a cache, in\nfewer steps. TaylorSeer, FeMo and Adapted-FeMo are published methods with their "
    "papers' settings. Noise levels are such that early\nsteps matter most, as others found of large models.\n\nOff "
    "by: how far a pixel is from the full run's, in percent of the way from black to white; less is better.")


@dataclass
class Row:
    name: str
    pixels: Tensor  # (B, 3, 64, 64), −1 … 1
    report: RunReport
    off: float  # RMSE to the full run over the range of a pixel, mean over the drawings
    flops_speedup: float
    wall_speedup: float


Planned: TypeAlias = tuple[str, int, AbstractPredictor, AbstractSchedule]


def plan(steps: int = STEPS, speedups: Sequence[float] = SPEEDUPS, known: Recording | None = None) -> list[Planned]:
    """Name, steps, predictor and schedule of every run; the first is the full one.

    known: what a full run of other prompts told, that FeMo Auto goes by. The papers' interval is the one that gives
    nearest as many full steps.
    """
    everything = Schedule(interval=1)
    runs: list[Planned] = [("full run", steps, TaylorSeer(1), everything)]
    for speedup in speedups:
        budget = round(steps / speedup)
        if known:
            auto = by_recording(known, known.sigmas, known.signals, Quality(0.0, speedup))
            runs.append((AUTO, steps, auto.predictor, auto.schedule))
        runs.append((f"{budget} {PLAIN}", budget, TaylorSeer(1), everything))
        for name in PAPERS_SETTINGS:
            preset = PAPERS[name]
            interval = min(range(2, steps), key=lambda n: abs(len(preset.schedule(n).full_steps(steps)) - budget))
            runs.append((f"{name.partition(',')[0]}, one step in {interval}", steps, preset.predictor,
                         preset.schedule(interval)))
    return runs


def learned(steps: int, shift: float = SHIFT) -> Recording:
    """From a full run of prompts that are not drawn."""
    subject = TinyFlux()
    return record(subject, LEARNED, steps, levels=Regime(subject.name, shift).levels(subject, steps)).told


def run_all(runs: Sequence[Planned], shift: float = SHIFT) -> list[Row]:
    """The pictures and figures of a `plan`."""
    subject, job = TinyFlux(), Job(PROMPTS)
    flops = count_flops(subject, job)
    sample(subject, job, 2, TaylorSeer(1), Schedule(1))  # warms up the allocator and the thread pool
    rows: list[Row] = []
    with tqdm(total=sum(steps for _, steps, _, _ in runs), unit="step") as progress:
        for name, steps, predictor, schedule in runs:
            progress.set_description(name.ljust(28))
            result, report = sample(
                subject, job, steps, predictor, schedule, levels=Regime(subject.name, shift).levels(subject, steps),
                on_step=lambda _: progress.update())
            rows.append(measured(name, subject.pixels(result), report, flops, rows[0] if rows else None))
    return rows


def measured(name: str, pixels: Tensor, report: RunReport, flops: tuple[int, int], full: Row | None) -> Row:
    """A run beside the `full` one (None if it is that one); flops of a full and of a predicted step."""
    reference = full.report if full else report
    spent = report.network_runs * flops[0] + report.network_runs_saved * flops[1]
    return Row(
        name, pixels, report,
        off=_off(pixels, full.pixels) if full else 0.0,
        flops_speedup=reference.network_runs * flops[0] / spent,
        wall_speedup=reference.seconds / report.seconds,
    )


def _off(pixels: Tensor, reference: Tensor) -> float:
    return sum(rmse(one, other) for one, other in zip(pixels, reference, strict=True)) / len(pixels) / RANGE


def table(rows: list[Row], timed: bool = True) -> str:
    """timed: with how much faster a run was, which is of this machine and of what else runs on it."""
    return markdown(
        ("run", "computed steps", "times less computing", *(["times faster"] if timed else []), "off by"),
        [[row.name, _steps(row), f"{row.flops_speedup:.1f}", *([f"{row.wall_speedup:.1f}"] if timed else []),
          f"{row.off:.2%}"] for row in rows])


def _steps(row: Row) -> str:
    return f"{row.report.network_runs} of {row.report.total_steps}"


def short(rows: list[Row]) -> list[Row]:
    """The full run, FeMo Auto at about `SHORT` times less computing, and as many plain steps."""
    auto = min((row for row in rows if row.name == AUTO), key=lambda row: abs(row.flops_speedup - SHORT))
    plain = [row for row in rows if row.name == f"{auto.report.network_runs} {PLAIN}"]
    return [rows[0], auto, *plain]


def contact_sheet(rows: list[Row], path: Path) -> None:
    """A line for each row: drawings, and beside them, on white, what of each has changed."""
    height = len(rows) + 0.45
    figure, axes = pyplot.subplots(len(rows), 2, figsize=(9, 0.58 * height), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        changes = (row.pixels - rows[0].pixels).abs().mean(1, keepdim=True).expand_as(row.pixels) * AMPLIFIED
        for axis, pixels in zip(line, (row.pixels, 1 - changes), strict=True):
            strip = torch.cat(list(pixels[:SHOWN]), dim=2).movedim(0, -1)
            axis.imshow(((strip + 1) / 2).clamp(0, 1).numpy())
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        label = row.name if row is rows[0] else f"{row.name}\n{_steps(row)} steps, off by {row.off:.2%}"
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for axis, title in zip(axes[0], ("drawings", f"what has changed, {AMPLIFIED} times as strong"), strict=True):
        axis.set_title(title, fontsize=8, pad=3)
    figure.subplots_adjust(left=0.185, right=0.998, top=1 - 0.4 / height, bottom=0.01, hspace=0.04, wspace=0.02)
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
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
    axes[0][0].set_ylabel("β, the weight of history: one line a drawing")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(rows: list[Row], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(short(rows), out / "short.png")
    contact_sheet(rows, out / "contact_sheet.png")
    beta_chart(rows, out / "betas.png")
    (out / "table.md").write_text(table(rows) + "\n", encoding="utf-8")


def into_pages(rows: list[Row], out: Path) -> None:
    """What was written there, to where the pages of this repository show it."""
    for name, kept in (("short", "demo_short"), ("contact_sheet", "demo"), ("betas", "demo_betas")):
        shutil.copyfile(out / f"{name}.png", RESULTS / f"{kept}.png")
    found = table(rows, timed=False)
    page = re.sub("(<!-- demo -->\n).*?(<!-- end -->)", lambda marks: f"{marks[1]}{found}\n{marks[2]}",
                  MEASURED.read_text(encoding="utf-8"), flags=re.S)
    MEASURED.write_text(page, encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--speedups", type=float, nargs="+", default=SPEEDUPS)
    arguments.add_argument("--shift", type=float, default=SHIFT, help="of the noise levels; FLUX.1's own is 3.16")
    arguments.add_argument("--out", type=Path, default=Path("out/demo"))
    arguments.add_argument("--pages", action="store_true", help="also write the pages of this repository")
    options = arguments.parse_args()
    rows = run_all(plan(options.steps, options.speedups, learned(options.steps, options.shift)), options.shift)
    write(rows, options.out)
    if options.pages:
        into_pages(rows, options.out)
    print(f"\n{WORDS.format(count=len(PROMPTS), steps=options.steps)}\n\n{table(rows)}\n")
    print(f"pictures: {options.out / 'short.png'} and, of all rows, {options.out / 'contact_sheet.png'}")


if __name__ == "__main__":
    main()
