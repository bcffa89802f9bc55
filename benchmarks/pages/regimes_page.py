"""Writes results/regimes.md and regimes.png from results/regimes.csv: `make bench-regimes`."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import matplotlib

from benchmarks.pages.real_models import comparison
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.regimes import BUDGETS, budgets, read
from benchmarks.sampling.regime_subjects import SHIFTS

matplotlib.use("Agg")
from matplotlib import pyplot

JUDGE = "scenes"  # nothing was chosen on it
TUNING = ("tiny Flux", "tiny DiT")  # constants were chosen on them, with other seeds and prompts
LIKE_REAL = 1.0  # at this shift and below full steps lie as on large models: see the last section
OURS = ("Ramp", "FeMo Cache, interval 0", "calibrated", "tuned", "tuned, tried out", "tuned, learned at 20 steps",
        "tuned, learned at 50 steps")
PAPERS = "papers' schedule, best order"
SHOWN = ("plain, dpmpp_2m", "plain, uni_pc", "plain, deis", PAPERS, "Spectrum", "EasyCache", "SeaCache",
         "DPCache, O=1", "DPCache, O=2", "MeanCache", *OURS)
BARS = {"Ramp": (0.40, 1.0, 0.80, None), "tuned": (0.20, 0.70, 0.37, 1.3), "tuned, tried out": (0.17, 0.60, 0.33, 1.1)}

Key = tuple[str, float, int, int]


@dataclass(frozen=True)
class Row:
    """One measured run. ratio: of its RMSE to that of as many plain steps."""

    rmse: float
    ratio: float
    median: float
    psnr: float
    to_limit: float
    full: bool


def cells_of(rows: Iterable[dict[str, str]]) -> dict[Key, dict[str, Row]]:
    """By model, shift, steps and network runs; the papers' rows as they are, and their best as one more."""
    cells: dict[Key, dict[str, Row]] = {}
    for row in rows:
        key = row["model"], float(row["shift"]), int(row["steps"]), int(row["budget"])
        rmse, plain = float(row["rmse"]), float(row["plain"])
        full = int(row["runs"]) >= int(row["steps"])
        cells.setdefault(key, {})[row["row"]] = Row(
            rmse, 1.0 if full else rmse / plain, float(row["median"]), float(row["psnr"]), float(row["to_limit"]), full)
    for cell in cells.values():
        papers = [row for name, row in cell.items() if name.startswith("papers,")]
        if papers:
            cell[PAPERS] = min(papers, key=lambda row: row.rmse)
    return cells


def best_rival(cell: dict[str, Row]) -> float:
    return min(row.rmse for name, row in cell.items() if name not in OURS)


def best_of_papers(cell: dict[str, Row]) -> float:
    """Of plain steps and the papers' settings."""
    return min(row.rmse for name, row in cell.items() if name.startswith(("plain, euler", "papers")))


def summary(ratios: Sequence[float]) -> str:
    """Geometric mean, worst."""
    if not ratios:
        return ""
    return f"{math.exp(statistics.fmean(math.log(max(ratio, 1e-4)) for ratio in ratios)):.3f} / {max(ratios):.2f}"


def to_plain(cells: Iterable[dict[str, Row]], name: str) -> list[float]:
    return [cell[name].ratio for cell in cells if name in cell and not cell[name].full]


def to_rival(cells: Iterable[dict[str, Row]], name: str,
             rival: Callable[[dict[str, Row]], float] = best_rival) -> list[float]:
    """Where a row is a full run, which others are not, it is left out."""
    return [cell[name].rmse / rival(cell) for cell in cells if name in cell and not cell[name].full]


def groups(cells: dict[Key, dict[str, Row]]) -> dict[str, Callable[[Key], bool]]:
    return {
        f"{JUDGE}": lambda key: key[0] == JUDGE,
        f"{JUDGE}, shift {LIKE_REAL:g} and less": lambda key: key[0] == JUDGE and key[1] <= LIKE_REAL,
        **{f"{model}, other seeds": lambda key, model=model: key[0] == model for model in TUNING},
        "all": lambda key: True,
    }


def tables(cells: dict[Key, dict[str, Row]]) -> list[str]:
    by_group = {name: [cell for key, cell in cells.items() if wanted(key)] for name, wanted in groups(cells).items()}
    ratios = [[name, *(summary(to_plain(found, name)) for found in by_group.values())] for name in SHOWN]
    rivals = [[name, *(summary(to_rival(found, name)) for found in by_group.values())] for name in OURS]
    judged = by_group[JUDGE]
    steps = sorted({key[2] for key in cells}, reverse=True)
    by_steps = [[name, *(summary(to_plain([cell for key, cell in cells.items() if key[0] == JUDGE and key[2] == count],
                                          name)) for count in steps)] for name in SHOWN]
    own = [[model, name, summary([cell[name].rmse / cell["tuned"].rmse for key, cell in cells.items()
                           if key[0] == model and name in cell and not cell[name].full and not cell["tuned"].full])]
           for model in (JUDGE, *TUNING) for name in OURS[-2:]]
    bars = [[name, f"≤ {bar[0]:.2f} / {bar[1]:.2f}", summary(to_plain(judged, name)),
             f"≤ {bar[2]:.2f} / {'–' if bar[3] is None else f'{bar[3]:.1f}'}",
             summary(to_rival(judged, name, best_of_papers)), summary(to_rival(judged, name))]
            for name, bar in BARS.items()]
    pairs = [(f"papers, Adapted-FeMo, cool-down {cooldown}", f"papers, FeMo β=0.325, cool-down {cooldown}")
             for cooldown in (0, 1)]
    adapted = [cell[one].rmse / cell[other].rmse for cell in cells.values() for one, other in pairs if one in cell]
    declined = sum(cell["tuned"].full for cell in cells.values() if "tuned" in cell)
    heads = ("row", *by_group)
    papers = [[f"shift {shift:g}", str(count), *(summary([cell[f"papers, {name}, cool-down 0"].ratio
                for key, cell in cells.items() if key[0] != "tiny DiT" and key[1] == shift and key[2] == count
                and f"papers, {name}, cool-down 0" in cell]) for name in PAPER_ROWS)]
              for shift in sorted({key[1] for key in cells if key[0] != "tiny DiT"}, reverse=True)
              for count in (50, 20)]
    headline = [[f"{model}, shift {shift:g}, {count} steps, {budget} runs", name, f"{row.rmse:.4f}",
                 f"{row.median:.4f}", f"{row.psnr:.1f}", f"{row.to_limit:.4f}", f"{row.ratio:.2f}"]
                for (model, shift, count, budget), cell in cells.items()
                if model == JUDGE and shift == 0.5 and (count, budget) in ((20, 7), (50, 8))
                for name in ("plain, euler", *SHOWN) if (row := cell.get(name))]
    return [
        markdown(("row", "over plain, wanted", "reached", "over the best rival, wanted",
                  "reached: of plain steps and the papers'", "reached: of all rows in hindsight"), bars),
        markdown(heads, ratios), markdown(heads, rivals), markdown(("row", *(f"{count} steps" for count in steps)),
                                                                     by_steps),
        markdown(("model", "learned", "over learned at its own levels"), own),
        markdown(("regime of the flow models", "steps", *PAPER_ROWS), papers),
        markdown(("cell", "row", "RMSE", "median picture", "PSNR, dB", "to the limit", "over plain"), headline),
        str(declined), summary(adapted), str(len(adapted))]


PAPER_ROWS = ("TaylorSeer O=0", "TaylorSeer O=1", "TaylorSeer O=2", "FeMo β=0.325")

TEXT = """Every row in every regime: `make bench-regimes` writes this page from regimes.csv.

A regime is a small model at a timestep shift
([regime_subjects](../sampling/regime_subjects.py) says why that makes it behave
like a large one). Each number is the RMSE to the full run over that of as many plain Euler steps: geometric mean over
50, 28, 20, 12 and 8 steps and 1.3- to 6-fold speed-up, then the worst. Below 1 is better than running fewer steps. The
model "scenes" was kept for judging: no constant was chosen on it; on the other two constants were chosen, with other
seeds, pictures and prompts than are measured here. Rivals are their rules on the same nets
([regime_rivals](../rivals/regime_rivals.py)), not their code.
A cell's best rival is, in hindsight, the best of all rows
that are not ours: some twenty, plain steps and twelve of the papers' settings among them. No one rival is as good.

Measured so far, cells of those that `make bench-regimes` goes through (it goes on where it stopped): %s.

![Ratio to plain steps](regimes.png)

## What was to be reached, on the model kept for judging

%s

## Over as many plain steps

%s

## Over the best rival of each cell

%s

## By the number of steps, on the model kept for judging

%s

## Learned elsewhere

Full steps tuned from what was learned at shift 1, in 20 or 50 steps, over those tuned from the regime's own.

%s

## The papers' claims, once more

The papers' schedule without a cool-down, over plain steps, by shift and steps, both flow models together.

%s

Adapted-FeMo (γ = 0.0125, β in 0.2 … 0.45) over FeMo with β fixed at 0.325: %s in %s cases, most of them in 20 steps.

## Two cells in full

%s

Cells in which `tune` chose a full run, as fewer steps were expected to do worse than plain ones: %s of all; they are
left out of its means.

## Which regime is a real model's?

%s
"""


def progress(cells: Iterable[Key]) -> str:
    """How many cells of each model have been measured, of how many."""
    done = Counter(model for model, _, steps, budget in cells if budget in budgets(model, steps))
    wanted = {model: len(shifts) * sum(len(budgets(model, steps)) for steps in BUDGETS)
              for model, shifts in SHIFTS.items()}
    return ", ".join(f"{model} {done[model]} of {count}" for model, count in wanted.items())


def draw(cells: dict[Key, dict[str, Row]]) -> None:
    """One line a row: ratio to plain steps by shift, geometric mean, on the model kept for judging."""
    shifts = sorted({key[1] for key in cells if key[0] == JUDGE}, reverse=True)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    styles = {PAPERS: ("C7", "papers' schedule, best setting"), "EasyCache": ("C1", "EasyCache's rule"),
              "DPCache, O=1": ("C4", "DPCache's rule"), "MeanCache": ("C5", "MeanCache's rule"),
              "Ramp": ("C2", "Ramp: nothing known"), "tuned": ("C0", "tuned from one full run"),
              "tuned, tried out": ("C3", "tuned and tried out")}
    for name, (colour, label) in styles.items():
        means = [math.exp(statistics.fmean(math.log(max(ratio, 1e-3)) for ratio in to_plain(
            [cell for key, cell in cells.items() if key[0] == JUDGE and key[1] == shift], name))) for shift in shifts]
        axes.plot(range(len(shifts)), means, "o-" if name in OURS else "x--", color=colour, label=label)
    axes.axhline(1, color="black", linewidth=1)
    axes.text(0, 1.03, "as good as running fewer steps", fontsize=8)
    axes.set(yscale="log", xticks=range(len(shifts)), xticklabels=[f"shift {shift:g}" for shift in shifts],
             ylabel="change of the picture, over fewer steps",
             title="Less is better (small model of scenes; all steps)")
    axes.text(0.99, 0.02, "searched full steps of large models: as at shift 1 and less", transform=axes.transAxes,
              ha="right", fontsize=8)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "regimes.png", dpi=110)
    pyplot.close(figure)


def main() -> None:
    cells = cells_of(read(RESULTS / "regimes.csv"))
    draw(cells)
    *found, declined, adapted, cases = tables(cells)
    page = TEXT % (progress(cells), *found[:-1], adapted, cases, found[-1], declined, comparison())
    (RESULTS / "regimes.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
