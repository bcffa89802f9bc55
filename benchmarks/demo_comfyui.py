"""`make demo-comfyui`: what `make demo` does, through a real ComfyUI server and its HTTP API."""

from __future__ import annotations

import copy
import dataclasses
import sys
import tempfile
from math import log
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import demo
from benchmarks.engines.comfy_server import ROOT, Client, comfy_server, workflow
from benchmarks.models.tiny_flux import Codec
from benchmarks.sampling.forecasting import count_flops
from benchmarks.sampling.subjects import Job, TinyFlux
from femo_core import FeMo, RunReport, Schedule, TaylorSeer

sys.path.append(str(ROOT / "tests" / "host"))
from hosts import MISSING, server_environment, this_host, version

BATCH = 12
PROMPT, ANOTHER = "red house day", "green tree night"


def prompt_for(base: dict[str, Any], steps: int, predictor: Any, schedule: Any) -> dict[str, Any]:
    """The example workflow with a run's settings."""
    prompt = copy.deepcopy(base)
    shared = {"interval": schedule.interval, "warmup_steps": schedule.warmup_steps,
              "cooldown_steps": schedule.cooldown_steps, "max_order": predictor.max_order}
    node = prompt["2"]
    node["inputs"] |= shared
    if isinstance(predictor, FeMo):
        node["inputs"] |= {
            name: getattr(predictor, name) for name in ("beta", "gamma", "beta_min", "beta_max", "momentum_start")}
    else:
        node["class_type"] = "TaylorSeerCache"
        node["inputs"] = {k: v for k, v in node["inputs"].items() if not k.startswith(("beta", "gamma"))}
    shifted(prompt)
    prompt["3"]["inputs"]["text"] = PROMPT
    prompt["6"]["inputs"]["batch_size"] = BATCH
    prompt["7"]["inputs"]["steps"] = steps
    return prompt


def shifted(prompt: dict[str, Any]) -> None:
    """To the noise levels of `make demo`: ComfyUI's node takes the shift's logarithm, of any size of picture here."""
    model = prompt["2"]["inputs"]["model"]
    prompt["40"] = {"class_type": "ModelSamplingFlux", "inputs": {
        "model": model, "width": 128, "height": 128, **dict.fromkeys(("max_shift", "base_shift"), log(demo.SHIFT))}}
    prompt["2"]["inputs"]["model"] = ["40", 0]


def with_auto(base: dict[str, Any], speedup: float, text: str = PROMPT) -> dict[str, Any]:
    prompt = prompt_for(base, demo.STEPS, TaylorSeer(1), Schedule(1))
    prompt["2"] = {"class_type": "FeMoAuto", "inputs": {
        "model": prompt["2"]["inputs"]["model"], "enabled": True, "quality": "by speed-up", "speedup": speedup,
        "learn": "once"}}
    prompt["3"]["inputs"]["text"] = text
    return prompt


def report_of(data: dict[str, Any]) -> RunReport:
    return RunReport(**{field.name: data[field.name] for field in dataclasses.fields(RunReport)})


def run_all(client: Client, base: dict[str, Any]) -> list[demo.Row]:
    codec = Codec.load()
    flops = count_flops(TinyFlux(), Job((PROMPT,) * BATCH))
    rows: list[demo.Row] = []
    warm_up = prompt_for(base, 2, *demo.plan()[0][2:])
    client.run(warm_up)  # loads the model
    client.run(with_auto(base, demo.SPEEDUPS[0], ANOTHER))  # which teaches it
    prompts = [(name, prompt_for(base, steps, predictor, schedule))
               for name, steps, predictor, schedule in demo.plan()]
    prompts[1:1] = [(demo.AUTO, with_auto(base, speedup)) for speedup in demo.SPEEDUPS]
    for name, prompt in tqdm(prompts, unit="run"):
        messages = client.run(prompt)
        report, pixels = report_of(client.report(messages)), codec.decode(client.latent(messages, "8"))
        rows.append(demo.measured(name, pixels, report, flops, rows[0] if rows else None))
    return rows


def main() -> None:
    host = this_host()
    if host is None:
        sys.exit(MISSING)
    out = Path("out/demo-comfyui")
    with (tempfile.TemporaryDirectory() as folder,
          comfy_server(host, Path(folder) / "base", environment=server_environment(host)) as client):
        rows = run_all(client, workflow("flux_femo.json", version(host)))
    demo.write(rows, out)
    print(f"\nComfyUI {version(host)}, {BATCH} drawings of {PROMPT!r}, KSampler euler/simple, {demo.STEPS} steps. "
          f"FeMo Auto has learned from {ANOTHER!r}.\n\n{demo.table(rows)}\n")
    print(f"pictures: {out / 'short.png'} and, of all rows, {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    main()
