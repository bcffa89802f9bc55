"""Does FeMo Auto keep to the change that was asked for? `make bench-auto` writes results/auto.md.

What is learned comes from six pictures, in the regime and number of steps of the run itself or at shift 1 in 20 steps;
16 other pictures are compared. The change is ‖result − full run's‖ / ‖full run's‖ of the sampler's result.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.pages.results import RESULTS, markdown
from benchmarks.regimes import BUDGETS, Cell, home_cell, subject_of
from benchmarks.sampling.forecasting import sample
from benchmarks.sampling.regime_subjects import MODELS, REGIMES, Regime
from femo_core import QUALITIES, Schedule, TaylorSeer
from femo_core.plans.guard import GuardedPlan
from femo_core.profiles.quality import Plan, by_recording, unknown

HOME_STEPS = 20
LEARNED = ("in the same regime", "at shift 1, 20 steps", "nothing")


@dataclass(frozen=True)
class Row:
    model: str
    shift: float
    steps: int
    quality: str
    learned: str
    full: int
    narrowed: bool  # by the guard
    guard: float  # its part of the run's time
    seconds: float  # of a full step
    expected: float
    median: float  # change of the median picture
    plain: float  # mean change, over that of as many plain steps


def plans(cell: Cell) -> Iterator[tuple[str, str, Plan]]:
    taught = [where.learned.told for where in (cell, home_cell(cell.subject, cell.regime.model, HOME_STEPS))]
    for name, quality in QUALITIES.items():
        for learned, recording in zip(LEARNED, taught, strict=False):
            if recording.covers(cell.sigmas):  # else the node learns again
                yield name, learned, by_recording(recording, cell.sigmas, cell.signals, quality)
        yield name, LEARNED[-1], unknown(cell.sigmas, quality.speedup)


def changes(result: Tensor, wanted: Tensor) -> Tensor:
    """(B,): of each picture."""
    return (result - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)


def measure(regime: Regime, steps: int) -> list[Row]:
    """In a process of its own, on one core."""
    torch.set_num_threads(1)
    subject, rows = subject_of(regime.model), list[Row]()
    cell = Cell(subject, regime, steps)
    with torch.inference_mode():
        wanted, _ = sample(subject, cell.job, steps, TaylorSeer(0), Schedule(1), levels=cell.levels)
        for quality, learned, plan in plans(cell):
            full = len(plan.schedule.full_steps(steps))
            if full == steps:
                rows.append(Row(regime.model, regime.shift, steps, quality, learned, full, False, 0.0, 0.0, 0.0, 0.0,
                                1.0))
                continue
            with timed(GuardedPlan, "is_full", "measured") as seconds:
                result, report = sample(subject, cell.job, steps, plan.predictor, plan.schedule, levels=cell.levels,
                                        expected_errors=plan.expected_errors)
            planned, full = full, len(report.full_steps)
            plain, _ = sample(
                subject, cell.job, full, TaylorSeer(0), Schedule(1), levels=regime.levels(subject, full))
            rows.append(Row(
                regime.model, regime.shift, steps, quality, learned, full, full > planned,
                seconds[0] / report.seconds, report.seconds_full_step, plan.expected_change,
                float(changes(result, wanted).median()),
                float((result - wanted).norm() / (plain - wanted).norm())))
    return rows


@contextmanager
def timed(kind: type, *names: str) -> Iterator[list[float]]:
    """While open, how long these methods take in all: [seconds]."""
    seconds = [0.0]

    def around(method: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args)
            finally:
                seconds[0] += time.perf_counter() - started
        return measured

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(kind, name, around(getattr(kind, name))))
        yield seconds


def page(rows: Sequence[Row]) -> str:
    table: list[list[str]] = []
    for model in MODELS:
        for quality, asked in QUALITIES.items():
            for learned in LEARNED:
                found = [row for row in rows if (row.model, row.quality, row.learned) == (model, quality, learned)
                         and row.full < row.steps]
                if not found:
                    continue
                times = sorted(row.median / asked.change for row in found)
                within = sum(0.5 <= one <= 2 for one in times)
                table.append([
                    model, f"{quality}, {asked.change:.0%}", learned, str(len(found)),
                    f"{statistics.median(row.steps / row.full for row in found):.1f}",
                    f"{statistics.median(row.median for row in found):.1%}", f"{within} of {len(found)}",
                    f"{times[0]:.2f} … {times[-1]:.2f}", f"{max(row.plain for row in found):.2f}"])
    guarded = [row for row in rows if row.guard]
    milliseconds = 1000 * statistics.median(row.seconds for row in guarded)
    declined = sum(row.full == row.steps for row in rows)
    heads = ("model", "asked for", "learned", "runs", "speed-up", "change", "within half and twice",
             "over what was asked", "worst over plain steps")
    return f"""FeMo Auto in the noise regimes: `make bench-auto` writes this page.

Speed-up is steps over full steps, the median over regimes (timestep shifts) and 50, 28, 20, 12 and 8 steps; change is
that of the median picture, and its median over these runs. The next columns say how many runs keep the median
picture's change between a half and twice what was asked for, and the least and most of it. A speed-up of at least 1.2
and at most 8 is taken whatever was asked, and at 10 steps and fewer at most 2: then the change may be less, or more.
The last column is the mean change over that of as many plain steps, at worst. "scenes" was kept for judging: no
constant was chosen on it. Runs in which every step was needed, and full: {declined} of {len(rows)}.

The guard, which is in the figures, made further steps full in {sum(row.narrowed for row in guarded)} of {len(guarded)}
runs. All that it does took {statistics.median(row.guard for row in guarded):.2%} of a run's time here, at most
{max(row.guard for row in guarded):.2%}; a full step took {milliseconds:.0f} ms.

{markdown(heads, table)}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", choices=list(MODELS), action="append")
    arguments.add_argument("--jobs", type=int, default=2)
    options = arguments.parse_args()
    wanted = [(regime, steps) for regime in REGIMES for steps in BUDGETS
              if regime.model in (options.model or MODELS)]
    rows: list[Row] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        running = [pool.submit(measure, *one) for one in wanted]
        for done in tqdm(as_completed(running), total=len(running), unit="regime"):
            rows += done.result()
    rows.sort(key=lambda row: (row.model, -row.shift, -row.steps))
    (RESULTS / "auto.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
