"""What this project would know of a GPU, in one command: `make gpu`, 6 minutes at most, without a network.

Five stages, each a process of its own with its own time limit, so that one that fails or hangs costs the others
nothing; what a stage finds is written as it is found. It makes results/gpu_<gpu>.jsonl, what was found;
gpu_<gpu>.md, the page; latency_<gpu>.csv, FLUX.1-dev's steps; and docs/measured.md's figures of a GPU.

`--dry` goes through all of it on a CPU in small, so that it can't rot; its times mean nothing and go nowhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu.gpu_page import BARS, Found, Line, page, with_figures
from benchmarks.gpu.gpu_stages import DRY, REAL, STAGES
from benchmarks.pages.tables import MEASURED, RESULTS
from benchmarks.speed.speed import Row, write

THIS = ("-m", "benchmarks.gpu.on_gpu")  # in a process of its own for each stage
LIMITS = {"checks": 95, "profile": 35, "flux": 145, "kernels": 45, "narrow": 40}  # seconds; in all 6 minutes


def run_stages(found: Found, stages: list[str], limits: dict[str, int], dry: bool) -> None:
    for stage in stages:
        found.forget(stage)
        started, seconds = time.monotonic(), limits[stage]
        command = [sys.executable, *THIS, "--stage", stage, "--found", str(found.path.resolve()),
                   *["--dry"] * dry]
        print(f"{stage}, {seconds} seconds at most", flush=True)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            try:
                code = subprocess.run(
                    command, timeout=seconds, cwd=MEASURED.parents[1], stdout=said, stderr=subprocess.STDOUT).returncode
                end = "done" if code == 0 else "failed"
            except subprocess.TimeoutExpired:
                end = "out of time"
            said.seek(0)
            tail = said.read()[-1500:]
        why = {} if end == "done" else {"said": tail}
        found.add(stage, "end", how=end, seconds=time.monotonic() - started, **why)
        print(f"{stage}: {end} after {time.monotonic() - started:.0f} seconds\n{tail if why else ''}", flush=True)


def name_of(dry: bool) -> tuple[str, str]:
    """Of the device, as it says and for a file."""
    name = "dry run" if dry else torch.cuda.get_device_name()
    return name, re.sub(r"\W+", "_", name.lower())


def rows_of(lines: list[Line]) -> list[Row]:
    return [Row(**line["row"]) for line in lines if line["kind"] == "row"]


def publish(found: Found, folder: Path, slug: str) -> None:
    lines = found.lines()
    if rows := rows_of(lines):
        write(rows, folder / f"latency_{slug}.csv")
    (folder / f"gpu_{slug}.md").write_text(page(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="on a CPU, in small: times mean nothing")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=[*STAGES],
                        help="only these; what is known of the others stays")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder that the results go to")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in the process of a stage
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        with torch.inference_mode():
            STAGES[options.stage](DRY if options.dry else REAL, Found(options.found))
        return
    if not options.dry and not torch.cuda.is_available():
        sys.exit(f"make gpu needs an NVIDIA GPU that PyTorch sees; this is PyTorch {torch.__version__}, which sees "
                 "none. Install PyTorch for CUDA, or try it on the CPU: python -m benchmarks.gpu.on_gpu --dry")
    if options.dry and options.out == RESULTS:
        options.out = Path("out/gpu")
    options.out.mkdir(parents=True, exist_ok=True)
    name, slug = name_of(options.dry)
    found = Found(options.out / f"gpu_{slug}.jsonl")
    found.forget("device")
    found.add("device", "device", name=name, torch=torch.__version__, cuda=torch.version.cuda, bars=BARS)
    run_stages(found, options.stages, LIMITS, options.dry)
    publish(found, options.out, slug)
    if options.out == RESULTS:
        text = with_figures(MEASURED.read_text(encoding="utf-8"), found.lines(), slug)
        MEASURED.write_text(text, encoding="utf-8")
    print(page(found.lines()))
    print(f"{options.out / f'gpu_{slug}.md'}: send this back, with the two files of the same name beside it")
    unfinished = [line["stage"] for line in found.lines() if line["kind"] == "end" and line["how"] != "done"]
    sys.exit(f"not finished: {', '.join(unfinished)}" if unfinished else 0)


if __name__ == "__main__":
    main()
