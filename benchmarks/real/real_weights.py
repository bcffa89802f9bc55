"""Every method on real weights, in a ComfyUI that runs somewhere: `make real COMFYUI=http://127.0.0.1:8188`.

Takes a workflow in API format, finds its samplers by their links, puts one method after the other in and compares what
comes of each prompt with the full run of the same seed. It goes on where it was interrupted: all of a prompt's methods
come before the next prompt, so that what is there at any time is a table. docs/real_weights.md says what it makes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.engines.comfy_server import ROOT
from benchmarks.real import real_page
from benchmarks.real.real_inputs import (
    ANOTHER_CLASS,
    ANOTHER_PROMPT,
    OURS,
    InputError,
    choose_workflow,
    chosen,
    methods_for,
    prompts_for,
)
from benchmarks.real.real_run import GONE, Measurement, TimedClient, connect, file_name, same_as_before
from benchmarks.real.real_workflow import Info, Prompt, WorkflowError, find, load, missing_files


def about(client: TimedClient, path: Path, model: str, measurement: Measurement) -> dict[str, Any]:
    stats = client.get("/system_stats").json()
    system, devices = stats["system"], stats["devices"]
    return {
        "model": model, "workflow": path.stem, "files": measurement.sampling.files(),
        "made": time.strftime("%Y-%m-%d"), "pack": version(),
        "comfyui": system.get("comfyui_version", "?"), "pytorch": system.get("pytorch_version", "?"),
        "python": system.get("python_version", "?").split(" ")[0], "gpu": gpu_name(devices),
        "memory": devices[0].get("vram_total", 0) if devices else 0,
        "arguments": [text for text in system.get("argv", []) if text.startswith("--")],  # no paths
        "steps": measurement.steps or measurement.sampling.total_steps, "seed": measurement.seed,
        "settings": measurement.sampling.settings(), "further": [*measurement.further],
        "methods": [asdict(method) for method in measurement.methods],
    }


def version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return found[1] if found else "?"


def gpu_name(devices: list[dict[str, Any]]) -> str:
    """"cuda:0 NVIDIA H200 : cudaMallocAsync" -> "NVIDIA H200"."""
    return re.sub(r"^\w+:\d+ | :.*$", "", devices[0]["name"]) if devices else "?"


def measure(options: argparse.Namespace) -> None:
    client = connect(options.comfyui)
    info: Info = client.get("/object_info").json()
    if "FeMoCache" not in info:
        raise InputError(f"the ComfyUI at {options.comfyui} has no FeMo Cache: install this pack there "
                         "and start it anew")
    path, model = choose_workflow(options.workflow, info)
    workflow: Prompt = load(path)
    if missing := missing_files(workflow, info):
        raise InputError(f"workflow {path}: the server lacks {', '.join(missing)}")
    sampling = find(workflow, info, options.sampler)
    if options.steps and not sampling.total_steps:
        raise InputError(f"steps: it is not known where {path} sets them; set them in the workflow")
    every = prompts_for(sampling, options.prompts)
    prompts = every[:1 if options.smoke else options.count or None]
    out = options.out or Path("out/real") / path.stem
    same_as_before(out, sampling, every, options.seed, options.steps)
    methods = chosen(methods_for(sampling, info), options.methods)
    another = options.another or (ANOTHER_CLASS if sampling.draws_classes else ANOTHER_PROMPT)
    measurement = Measurement(client, info, sampling, methods, prompts, options.seed, options.steps, another, out)
    described = about(client, path, model, measurement)
    print(f"{model}: {len(methods)} methods, {len(prompts)} prompts, samplers {', '.join(sampling.samplers)}; "
          f"{len(measurement.left)} runs to go; in {out}")
    try:
        measurement.run()
    except KeyboardInterrupt:
        client.interrupt()
        raise InputError("interrupted: run this again, and it goes on there") from None
    except GONE as error:
        raise InputError(f"the ComfyUI at {options.comfyui} went away, {len(measurement.left)} runs before the end: "
                         "start it and run this again, and it goes on there "
                         f"({type(error).__name__}: {error})"[:400]) from None
    finally:
        if measurement.records:
            publish(described, measurement, None if options.smoke else options.results)


def publish(about: dict[str, Any], measurement: Measurement, results: Path | None) -> None:
    """The table, and the file that can be sent in, which goes among the results with the page made anew."""
    summary = real_page.summarised({**about, "learning": measurement.learning}, measurement.records)
    text = f"{real_page.described(summary)}\n\n{real_page.table(summary)}\n"
    (measurement.out / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{measurement.out / 'table.md'}, pictures beside it")
    if results:
        results.mkdir(parents=True, exist_ok=True)
        path = results / f"{file_name(about['model'])}_{file_name(about['gpu'])}.json"
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        real_page.write_page(results)
        print(f"{path}: send this back; no picture and no prompt is in it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", required=True, help="address of a running ComfyUI that has this pack")
    parser.add_argument("--workflow", default="", help="a file in API format, or one of "
                        + ", ".join(path.stem for path in OURS) + "; else the first of these whose files are there")
    parser.add_argument("--prompts", type=Path, help="a file, one prompt a line; for DiT one class index a line")
    parser.add_argument("--count", type=int, default=0, help="only the first so many prompts")
    parser.add_argument("--smoke", action="store_true", help="one prompt, to see whether all works")
    parser.add_argument("--methods", nargs="+", default=[], help="only those whose names begin so")
    parser.add_argument("--steps", type=int, default=0, help="instead of the workflow's; the papers use 50")
    parser.add_argument("--seed", type=int, default=1, help="of the first prompt; each next has the next")
    parser.add_argument("--another", default="", help="a prompt that is not measured: models are loaded with it, and "
                        "FeMo Auto learns from it")
    parser.add_argument("--sampler", default="", help="id of the sampler to measure, where there are several")
    parser.add_argument("--out", type=Path, help="folder of pictures and runs; by default out/real/<workflow>")
    parser.add_argument("--results", type=Path, default=real_page.SENT, help="folder of what can be sent in")
    try:
        measure(parser.parse_args())
    except (InputError, WorkflowError) as problem:
        sys.exit(f"make real: {problem}")


if __name__ == "__main__":
    main()
