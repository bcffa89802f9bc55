"""What `make real` is given: a server's address, a workflow, prompts, methods; checked before anything runs."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from benchmarks.engines.comfy_server import ROOT
from benchmarks.real.real_workflow import Info, Method, Sampling, load, missing_files
from femo_core import presets

DATA = Path(__file__).parents[1] / "data"
OURS = {  # workflows, and what their model is called
    ROOT / "example_workflows" / "api" / "flux_dev_femo.json": "FLUX.1-dev",
    ROOT / "example_workflows" / "api" / "qwen_image_femo.json": "Qwen-Image",
    ROOT / "example_workflows" / "api" / "wan22_video_femo.json": "Wan 2.2 14B",
    DATA / "workflows" / "z_image.json": "Z-Image",
    ROOT / "example_workflows" / "api" / "minimax_h3_femo.json": "MiniMax-H3",
    DATA / "workflows" / "dit_xl.json": "DiT-XL/2",
}
CLASSES = 1000  # of ImageNet: DiT draws them instead of prompts
SPEEDUPS = (2, 3, 5, 6)
SETTINGS = {  # the papers', with their intervals
    "FLUX": (("TaylorSeer, FLUX, O=2", "FeMo, FLUX, O=1", "Adapted-FeMo, FLUX, O=1"), (4, 6, 7, 8)),
    "DiT": (("TaylorSeer, DiT, O=4", "FeMo, DiT, O=2", "Adapted-FeMo, DiT, O=2"), (3, 5, 7, 9)),
}
# What the models are loaded with and FeMo Auto learns from, and nothing is measured on.
ANOTHER_PROMPT, ANOTHER_CLASS = "a wooden boat on a calm lake, photograph", "1"
LONGEST = 2000  # characters of a prompt


class InputError(ValueError):
    """What keeps a measurement from beginning or going on, and what to do about it."""


def read_prompts(path: Path) -> list[str]:
    """A line: a prompt, or a category, a tab and a prompt; "#" begins a remark."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts file {path}: can't be read as text in UTF-8: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        *category, text = line.split("\t")
        if len(category) > 1 or not text.strip() or len(text) > LONGEST:
            raise InputError(f"prompts file {path}, line {number}: {line[:60]!r} is no prompt of at most {LONGEST} "
                          "characters: one a line, after its category and a tab or by itself")
        found.append(text.strip())
    if not found:
        raise InputError(f"prompts file {path}: there is no prompt in it: write one a line")
    return found


def choose_workflow(name: str, info: Info) -> tuple[Path, str]:
    """By path or by name; without one the first of ours whose files the server has."""
    if name:
        path = next((own for own in OURS if name in (own.stem, own.stem.removesuffix("_femo"))), Path(name))
        return path, OURS.get(path, path.stem)
    lacking = {path: missing_files(load(path), info) for path in OURS}
    for path, missing in lacking.items():
        if not missing:
            return path, OURS[path]
    raise InputError("the server lacks something for each of our workflows:\n" + "\n".join(
        f"  {path.stem}: {', '.join(missing)}" for path, missing in lacking.items())
        + "\nPut the files of one there, or name a workflow of your own, in API format: WORKFLOW=path.json")


def methods_for(sampling: Sampling, info: Info) -> list[Method]:
    found = [Method("full")]
    if sampling.total_steps:
        found += [Method(f"fewer steps, {times}×", fewer=times) for times in SPEEDUPS]
    if "EasyCache" in info:
        found.append(Method("EasyCache", "EasyCache"))
    names, intervals = SETTINGS["DiT" if sampling.draws_classes else "FLUX"]
    for name in names:
        preset, (method, _, order) = presets.PAPERS[name], name.split(", ")
        node = "TaylorSeerCache" if method == "TaylorSeer" else "FeMoCache"
        values = {**asdict(preset.predictor), "warmup_steps": preset.warmup_steps,
                  "cooldown_steps": preset.cooldown_steps, "site": "module"}
        found += [Method(f"{method} {order}, N={interval}", node, {**values, "interval": interval, "enabled": True})
                  for interval in intervals]
    if "FeMoAuto" in info:
        found += [Method(f"FeMo Auto, {times}×", "FeMoAuto", {
            "enabled": True, "quality": "by speed-up", "speedup": float(times), "learn": "once"})
            for times in SPEEDUPS]
    return found


def prompts_for(sampling: Sampling, path: Path | None) -> list[str]:
    if not sampling.draws_classes:
        return read_prompts(path or DATA / "prompts.txt")
    if path is None:
        return [str(index * CLASSES // 200) for index in range(200)]
    found = read_prompts(path)
    if wrong := [text for text in found if not re.fullmatch(r"\d+(\s*,\s*\d+)*", text)]:
        raise InputError(f"prompts file {path}: this workflow draws classes, so that each line must be a class index, "
                         f"or several for a batch; got {wrong[0][:60]!r}")
    return found


def chosen(methods: list[Method], names: list[str]) -> list[Method]:
    """Those whose names begin so, and the full run, with which all are compared."""
    if not names:
        return methods
    for name in names:
        if not any(method.name.lower().startswith(name.lower()) for method in methods):
            raise InputError(f"methods: {name!r} is none of {', '.join(method.name for method in methods)}")
    return [method for method in methods if method.name == "full" or any(
        method.name.lower().startswith(name.lower()) for name in names)]
