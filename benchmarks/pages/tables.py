"""Makes tables.md, the figure and the tables of docs/measured.md, of results/paper_table.csv."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.pages.results import RESULTS, markdown
from benchmarks.paper_table import EARLIER, FULL, HEADLINE_INTERVALS, INTERVALS, Table
from benchmarks.sampling.jobs import STEPS
from femo_core import FeMo
from femo_core.presets import PAPERS

matplotlib.use("Agg")
from matplotlib import pyplot

MEASURED = Path(__file__).parents[2] / "docs" / "measured.md"
MODELS = {"tiny Flux": "FLUX", "tiny DiT": "DiT"}  # and what the presets call their family
Row = dict[str, Any]


class Rows:
    """The table's rows, to be asked for by the values of their columns."""

    def __init__(self, rows: Iterable[Row]):
        self.rows = list(rows)

    def find(self, **wanted: Any) -> list[Row]:
        return [row for row in self.rows if all(row.get(name, "") == str(value) for name, value in wanted.items())]

    def first(self, **wanted: Any) -> Row | None:
        return next(iter(self.find(**wanted)), None)


def number(row: Row | None, name: str, digits: int = 3, error: bool = False) -> str:
    if not row or not row.get(name):
        return "–"
    text = f"{float(row[name]):.{digits}f}"
    return f"{text} ± {float(row[name + '_se']):.{digits}f}" if error else text


def label(row: Row) -> str:
    """A method with what tells it from others."""
    name = row["method"]
    if name in ("TaylorSeer", "FeMo", "Adapted-FeMo"):
        name += f" O={row['order']}"
    if row["beta"]:
        name += f" β={float(row['beta']):g}".replace("-", "−")
    if row["start"] == "feature":
        name += " (start at F)"
    return name


COLUMNS_DRAWN = (("psnr", "PSNR to the full run, dB"), ("psnr_limit", "PSNR to the limit, dB"))
QUALITY = ("runs", "FLOPs", "wall clock", "RMSE to the full run", "PSNR", "SSIM", "RMSE to the limit")


def quality(row: Row) -> list[str]:
    def speedup(name: str) -> str:
        return f"{number(row, name, 2)}×" if row.get(name) else "–"

    return [row["full_steps"], speedup("flops_speedup"), speedup("wall_speedup"), number(row, "rmse", 4, error=True),
            number(row, "psnr", 1), number(row, "ssim", 3), number(row, "rmse_limit", 4, error=True)]


def shown(rows: Iterable[Row], model: str) -> list[Row]:
    """FORA, TaylorSeer O=1, 2, the papers' FeMo and Adapted-FeMo at O=1, and our default."""
    family = MODELS[model]
    presets = [EARLIER[family], *(PAPERS[f"{name}, {family}, O=1"] for name in ("FeMo", "Adapted-FeMo"))]
    settings = {(str(p.max_order), str(p.beta), p.momentum_start, str(p.gamma) if p.gamma else "")
                for p in (preset.predictor for preset in presets) if isinstance(p, FeMo)}
    return [row for row in rows if row["method"] == "FORA" or (row["method"] == "TaylorSeer" and row["order"] in "12")
            or (row["order"], row["beta"], row["start"], row["adaptive"]) in settings]


def headline(rows: Rows, model: str) -> str:
    """Full, fewer steps, FORA, TaylorSeer, FeMo and Adapted-FeMo at N = 4, 6, 8 with one cool-down step."""
    found = [rows.first(model=model, method="full", steps=STEPS, sampler="euler")]
    for interval in HEADLINE_INTERVALS:
        ours = rows.find(model=model, sampler="euler", interval=interval, cooldown=1, site="hidden", steps=STEPS)
        ours = shown(ours, model)
        count = ours[0]["full_steps"] if ours else ""
        found.append(rows.first(model=model, method="fewer steps", steps=count, of_steps=STEPS, sampler="euler"))
        found += rows.find(model=model, method="Adams–Bashforth on the full steps", interval=interval, cooldown=1)
        found += ours
    body = [[label(row), row["interval"] or "–", *quality(row), number(row, "frechet", 3),
             f"{100 * float(row['accuracy']):.1f} %" if row.get("accuracy") else "–"] for row in found if row]
    return markdown(("method", "N", *QUALITY, "Fréchet", "accuracy"), body)


def cooldowns(rows: Rows, model: str) -> str:
    """RMSE to the full run by N, without and with a cool-down step, for the methods that matter."""
    keys = list(dict.fromkeys(
        (row["method"], row["order"], row["beta"], row["start"], row["adaptive"])
        for row in rows.find(model=model, sampler="euler", site="hidden", steps=STEPS)))
    body = []
    for method, order, beta, start, adaptive in keys:
        for cooldown in (0, 1):
            cells = [rows.first(model=model, sampler="euler", site="hidden", steps=STEPS, method=method, order=order,
                                beta=beta, start=start, adaptive=adaptive, cooldown=cooldown, interval=n)
                     for n in INTERVALS]
            if known := next((cell for cell in cells if cell), None):
                body.append([label(known), str(cooldown), *(number(cell, "rmse", 4) for cell in cells)])
    return markdown(("method", "cool-down", *(f"N={n}" for n in INTERVALS)), body)


def few_steps(rows: Rows, model: str, steps: int) -> str:
    """What people really use: short runs."""
    found = [row for row in rows.find(model=model, of_steps=steps, sampler="euler") if row["method"] != FULL.name]
    found.sort(key=lambda row: (int(row["full_steps"]), row["method"] != "fewer steps"))
    return markdown(("method", "N", "cool-down", *QUALITY),
                    [[label(row), row["interval"] or "–", row["cooldown"] or "–", *quality(row)] for row in found])


def stochastic(rows: Rows, model: str) -> str:
    found = rows.find(model=model, sampler="ancestral")
    return markdown(("method", "N", "cool-down", *QUALITY[:-1]),
                    [[label(row), row["interval"], row["cooldown"], *quality(row)[:-1]]
                     for row in found if row["method"] != FULL.name])


def sites(rows: Rows, model: str) -> str:
    body = []
    for row in rows.find(model=model, sampler="euler", interval=6, steps=STEPS, site="hidden"):
        same = {name: row[name] for name in ("method", "order", "beta", "start", "adaptive", "cooldown")}
        others = [rows.first(model=model, sampler="euler", interval=6, site=site, **same)
                  for site in ("hidden", "module", "output")]
        body.append([label(row), row["cooldown"], *(number(other, "rmse", 4) for other in others)])
    return markdown(("RMSE to the full run, N = 6", "cool-down", "hidden", "module", "output"), body)


def at_equal_runs(rows: Rows, model: str) -> str:
    """Everything that spends about as many network runs, by its distance to the limit."""
    found = [row for row in rows.find(model=model, of_steps=STEPS) if row.get("rmse_limit")
             and row["site"] in ("", "hidden") and row["cooldown"] in ("", "1")
             and (row["interval"] in map(str, HEADLINE_INTERVALS) or not row["interval"])]
    counts = sorted({int(row["full_steps"]) for row in found
                     if row["method"] == "FORA" and row["interval"] in map(str, HEADLINE_INTERVALS)}, reverse=True)
    body = []
    for count in counts:
        near = sorted((row for row in found if int(row["full_steps"]) == count), key=lambda r: -float(r["psnr_limit"]))
        body += [[str(count), label(row), sampler_of(row), number(row, "psnr_limit", 1, error=True),
                  number(row, "rmse_limit", 4, error=True)] for row in near]
    return markdown(("runs", "method", "sampler", "PSNR to the limit", "RMSE to the limit"), body)


def sampler_of(row: Row) -> str:
    return {"ab2": "Adams–Bashforth", "euler": "Euler" if row["model"] == "tiny Flux" else "DDIM"}.get(
        row["sampler"], row["sampler"])


def rivals(rows: Rows, model: str) -> str:
    marks = ("diffusers", "cache-dit", "ComfyUI ", "FeMo in ComfyUI")
    found = [row for row in rows.find(model=model, of_steps=STEPS) if row["method"].startswith(marks)]
    for interval in HEADLINE_INTERVALS:
        ours = rows.find(model=model, sampler="euler", site="hidden", interval=interval, cooldown=1, steps=STEPS)
        found += shown(ours, model)
    found.sort(key=lambda row: (-int(row["full_steps"]), float(row["rmse"])))
    return markdown(("method", "N", "order", *QUALITY),
                    [[label(row), row["interval"] or "–", row["order"] or "–", *quality(row)] for row in found])


def everything(rows: Rows) -> str:
    parts = ["# Measured\n\nMade by `make bench` and `python -m benchmarks.pages.tables` from paper_table.csv. RMSE of "
             "pixels in −1 … 1, mean ± standard error over the seeds; runs: steps at which the network ran."]
    for model in MODELS:
        parts.append(f"## {model}")
        for title, text in {
            "N = 4, 6, 8 of 50 steps, one cool-down step": headline(rows, model),
            "RMSE to the full run by N, with and without cool-down": cooldowns(rows, model),
            "20 steps": few_steps(rows, model, 20), "28 steps": few_steps(rows, model, 28),
            "Stochastic sampler (ancestral, the same noise in all rows)": stochastic(rows, model),
            "Sites": sites(rows, model),
            "At equal network runs, by the distance to the limit": at_equal_runs(rows, model),
            "Other engines": rivals(rows, model),
        }.items():
            parts.append(f"### {title}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def figure(rows: Rows, path: Path) -> None:
    """Closeness over network runs, to the full run and to the limit."""
    styles = {
        "fewer steps": ({"method": "fewer steps", "sampler": "euler", "of_steps": STEPS}, "k--"),
        "Adams–Bashforth on our grid": ({"method": "Adams–Bashforth on the full steps", "cooldown": 1}, "k:"),
        "FORA": ({"method": "FORA", "cooldown": 1}, "C7-"),
        "TaylorSeer O=1": ({"method": "TaylorSeer", "order": 1, "cooldown": 1}, "C0-"),
        "TaylorSeer O=2": ({"method": "TaylorSeer", "order": 2, "cooldown": 1}, "C9-"),
        "TaylorSeer O=1, no cool-down": ({"method": "TaylorSeer", "order": 1, "cooldown": 0}, "C0--"),
    }
    drawn, axes = pyplot.subplots(2, 2, figsize=(11, 8), squeeze=False)
    for i, (model, family) in enumerate(MODELS.items()):
        lines = dict(styles)
        for colour, (name, preset) in enumerate(
                (("FeMo, papers", PAPERS[f"FeMo, {family}, O=1"]), ("FeMo, default", EARLIER[family])), start=1):
            lines[name] = {"method": "FeMo", "order": preset.predictor.max_order, "beta": preset.predictor.beta,
                           "start": preset.predictor.momentum_start, "cooldown": 1}, f"C{colour}-"
        for j, (column, title) in enumerate(COLUMNS_DRAWN):
            axis = axes[i][j]
            for name, (wanted, style) in lines.items():
                sampler = "ab2" if "Adams" in name else "euler"
                line = rows.find(model=model, **{"sampler": sampler} | wanted)
                line = [row for row in line if row["site"] in ("", "hidden") and row.get(column)
                        and row["of_steps"] == str(STEPS)]
                points = sorted((int(row["full_steps"]), float(row[column])) for row in line)
                points = [(x, y) for x, y in points if x <= 20]
                if points:
                    axis.plot(*zip(*points, strict=True), style, marker=".", label=name)
            axis.set(xlabel="network runs (of 50 steps)", ylabel=title, title=model)
        axes[i][0].legend(fontsize=7)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110)
    pyplot.close(drawn)


def with_tables(page: str, rows: Rows) -> str:
    """docs/measured.md with what lies between its marks made anew."""
    for model in MODELS:
        mark = model.replace(" ", "-")
        page = re.sub(rf"(<!-- table {mark} -->\n).*?(<!-- end -->)",
                      lambda found, model=model: f"{found[1]}{headline(rows, model)}\n{found[2]}", page, flags=re.S)
    return page


def main() -> None:
    rows = Rows(Table(RESULTS / "paper_table.csv").rows.values())
    (RESULTS / "tables.md").write_text(everything(rows), encoding="utf-8")
    figure(rows, RESULTS / "paper_table.png")
    MEASURED.write_text(with_tables(MEASURED.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
