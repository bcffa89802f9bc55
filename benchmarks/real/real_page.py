"""Tables of what `make real` measured, by themselves and beside what the papers report: results/real_weights.md.

`python -m benchmarks.real.real_page` makes the page anew from results/real_weights/*.json.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image, ImageDraw

from benchmarks.pages.results import RESULTS, markdown

Record: TypeAlias = dict[str, Any]
Summary: TypeAlias = dict[str, Any]

SENT = RESULTS / "real_weights"  # what was measured, one file for each model and GPU
PAPERS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "papers_results.json").read_text(encoding="utf-8"))
FIGURES = {"psnr": 2, "psnr_min": 2, "ssim": 4, "ssim_min": 4, "lpips": 4, "image_reward": 4, "clip": 3}
COMPARED = {"latency": ("seconds", 3), "latency_speedup": ("faster", 2), "flops_speedup": ("FLOPs", 2),
            "image_reward": ("ImageReward", 4), "clip": ("CLIP", 3), "psnr": ("PSNR", 2), "ssim": ("SSIM", 4),
            "lpips": ("LPIPS", 4), "fid": ("FID", 2)}
SHEET_SIDE = 256  # pixels


def summarised(about: dict[str, Any], records: Sequence[Record]) -> Summary:
    """What is kept of a measurement: no picture and no prompt."""
    full = {record["prompt"]: record for record in records if record["method"] == "full" and "failed" not in record}
    per_run = next((record["runs_full"] for record in records if record.get("runs_full")), 0)
    methods = []
    for method in about["methods"]:
        tried = [record for record in records if record["method"] == method["name"]]
        done = [record for record in tried if "failed" not in record]
        timed = [(record["seconds"], full[record["prompt"]]["seconds"]) for record in done
                 if record.get("seconds") and full.get(record["prompt"], {}).get("seconds")]
        found = {**method, "prompts": len(done), "failed": len(tried) - len(done)}
        if timed:
            found["latency"] = statistics.mean(seconds for seconds, _ in timed)
            found["latency_speedup"] = sum(of_full for _, of_full in timed) / sum(seconds for seconds, _ in timed)
        if runs := _runs(method, done, per_run, about["steps"]):
            found |= {"runs": runs, "flops_speedup": per_run / runs}
        for name in FIGURES:
            if values := [record[name] for record in done if record.get(name) is not None]:
                found[name] = statistics.mean(values)
        if frames := max((record.get("pictures", 1) for record in done), default=1):
            found["pictures"] = frames
        found["sites"] = sorted({site for record in done for site in record.get("sites", ())})
        said = [text for record in tried for text in (record.get("failed"), *record.get("said", ())) if text]
        found["said"] = [*dict.fromkeys(said)][:3]
        methods.append(found)
    return {**about, "methods": methods}


def _runs(method: dict[str, Any], done: Sequence[Record], per_run: int, steps: int) -> float:
    """Of the network, in one picture; 0 where it is not known."""
    if known := [record["runs"] for record in done if "runs" in record]:
        return statistics.mean(known)
    if method["node"] or not done:
        return 0.0
    return per_run * (done[0].get("steps", steps) / steps if steps else 1.0)


def table(summary: Summary) -> str:
    shown = [name for name in FIGURES if any(method.get(name) is not None for method in summary["methods"])]
    if not any(method.get("pictures", 1) > 1 for method in summary["methods"]):
        shown = [name for name in shown if not name.endswith("_min")]
    titles = {"psnr": "PSNR, dB", "psnr_min": "the worst", "ssim": "SSIM", "ssim_min": "the worst", "lpips": "LPIPS",
              "image_reward": "ImageReward", "clip": "CLIP"}
    body = []
    for method in summary["methods"]:
        tried = method["prompts"] + method["failed"]
        body.append([
            method["name"], f"{method['prompts']}" + (f" of {tried}" if method["failed"] else ""),
            _number(method, "latency", 2), _number(method, "latency_speedup", 2, "×"), _number(method, "runs", 1),
            _number(method, "flops_speedup", 2, "×"),
            *("–" if method["name"] == "full" and name[:4] in ("psnr", "ssim") else _number(method, name, digits)
              for name, digits in FIGURES.items() if name in shown),
            ", ".join(method["sites"]) or "–",
            "; ".join(method["said"]).replace("|", "/").replace("\n", " ")[:160] or "–"])
    return markdown(("method", "pictures", "latency, s", "faster", "network runs", "fewer",
                     *(titles[name] for name in shown), "site", "what it said"), body)


def _number(values: dict[str, Any], name: str, digits: int, unit: str = "") -> str:
    return f"{values[name]:.{digits}f}{unit}" if values.get(name) is not None else "–"


def described(summary: Summary) -> str:
    learned = summary.get("learning")
    steps = summary["steps"] or "an unknown number of"
    return (f"{summary['workflow']}, {', '.join(summary['files']) or 'no files'}; {summary['gpu']}, ComfyUI "
            f"{summary['comfyui']}, PyTorch {summary['pytorch']}; {steps} steps, seeds from {summary['seed']}; "
            f"{summary['made']}. Latency is that of the samplers, without text encoders and VAE." +
            (f" FeMo Auto learned in one run of {learned['seconds']:.1f} s of another prompt, which is in no row."
             if learned and learned.get("seconds") and not learned.get("saved") else ""))


def page(summaries: Sequence[Summary]) -> str:
    parts = [
        "# On real weights",
        "`make real COMFYUI=http://…` fills this page ([how](../../docs/real_weights.md)). Columns are empty where "
        "nobody has run it, and nothing stands in them that was not measured by it.",
        "The papers' figures: FLUX.1-dev in 50 steps, 200 prompts of DrawBench, 1000², on an H20 (FeMo) and an H800 "
        "(TaylorSeer); DiT-XL/2 in 50 DDIM steps, 50,000 pictures, latency as in FeMo's ICLR manuscript. Prompts here "
        "are our own in DrawBench's categories, so that ImageReward and CLIP are to be compared within a column only. "
        "FID is not measured. \"Fewer steps, 3×\" is the papers' \"34 % steps\"."]
    for model in dict.fromkeys(row["model"] for row in PAPERS):
        of_model = [summary for summary in summaries if summary["model"] == model]
        parts += [f"## {model}, beside the papers", beside(model, of_model)]
    for summary in summaries:
        parts += [f"## {summary['model']}, {summary['gpu']}", described(summary), table(summary)]
    return "\n\n".join(parts) + "\n"


def beside(model: str, summaries: Sequence[Summary]) -> str:
    rows = [row for row in PAPERS if row["model"] == model]
    reported = [name for name in COMPARED if any(name in row for row in rows)]
    everywhere = ("latency", "latency_speedup", "flops_speedup", "psnr", "ssim", "lpips")
    ours = [name for name in COMPARED if name in everywhere or (name in reported and name != "fid")]
    runs = summaries or [{"gpu": "`make real`", "methods": []}]
    head = ["method", "paper", *(f"{COMPARED[name][0]}, paper" for name in reported),
            *(f"{COMPARED[name][0]}, {run['gpu']}" for run in runs for name in ours)]
    body = []
    for row in rows:
        cells = [_cell(row, name) for name in reported]
        for run in runs:
            found = next((method for method in run["methods"] if method["name"] == row["method"]), {})
            cells += [_cell(found, name) for name in ours]
        body.append([row["method"], row["paper"], *cells])
    return markdown(head, body)


def _cell(values: dict[str, Any], name: str) -> str:
    return _number(values, name, COMPARED[name][1], "×" if name.endswith("speedup") else "").replace("–", "")


def sheet(pictures: Iterable[tuple[str, Path]], path: Path) -> None:
    """Pictures side by side, under each its name."""
    found = [(name, Image.open(one).convert("RGB")) for name, one in pictures]
    columns = min(6, len(found))
    rows = -(-len(found) // columns)
    canvas = Image.new("RGB", (columns * (SHEET_SIDE + 8), rows * (SHEET_SIDE + 28)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, image) in enumerate(found):
        image.thumbnail((SHEET_SIDE, SHEET_SIDE))
        corner = (number % columns) * (SHEET_SIDE + 8), number // columns * (SHEET_SIDE + 28)
        canvas.paste(image, corner)
        draw.text((corner[0] + 2, corner[1] + SHEET_SIDE + 6), name, fill="black")
    canvas.save(path, quality=90)


def sent(folder: Path = SENT) -> list[Summary]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def write_page(folder: Path = SENT) -> None:
    """Beside the folder."""
    folder.with_suffix(".md").write_text(page(sent(folder)), encoding="utf-8")


if __name__ == "__main__":
    write_page()
