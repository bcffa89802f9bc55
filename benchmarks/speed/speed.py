"""How much of what forecasting saves in FLOPs it saves in time: `make bench-speed`.

A Flux of random weights, 50 Euler steps, with one cache after another: ours at each site, without ComfyUI and in it,
and the caches of others on the same weights and schedule. All in one run; only ratios within it mean anything: after
each full step the network runs once without a cache, and steps are measured by that. Medians. Writes
results/latency_<device>.csv, speed_<device>.md and speed_<device>.png.
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from benchmarks.engines.comfy_server import loads_small_fluxes
from benchmarks.engines.hosted import hosts
from benchmarks.models.flux_model import FluxConfig
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.speed.memory_meter import MemoryMeter
from benchmarks.speed.speed_engines import Cache, Engine, InComfyUI, InDiffusers, RandomFlux, Size, Standalone, Steps
from femo_core import FeMo, Schedule, TaylorSeer

STEPS = 50
ALL_FULL_STEPS = 14  # at interval 1
METERED_STEPS, METERED_INTERVAL = 8, 4  # where memory is measured
INTERVALS = (8, 6, 4)
SITES = ("hidden", "output", "module")

SIZES = {
    "cpu": [Size("Flux 1024 wide", FluxConfig(1024, 4, 8, context_dim=1024), side=64, text=256)],
    "cuda": [Size("FLUX.1-dev, 1024²", FluxConfig(3072, 19, 38, context_dim=4096, pooled_dim=768), 128, 512),
             Size("FLUX.1-dev, 2048²", FluxConfig(3072, 19, 38, context_dim=4096, pooled_dim=768), 256, 512)],
}
# As many blocks as FLUX.1-dev, and next to nothing in each: what is left is what every predicted step costs anyway.
NARROW = Size("Flux 128 wide, 57 blocks", FluxConfig(128, 19, 38), side=8, text=16)

OURS = {
    "TaylorSeer": TaylorSeer(1), "TaylorSeer, O=2": TaylorSeer(2), "FeMo": FeMo(1, beta=0.2),
    "Adapted-FeMo": FeMo(1, beta=0.325, gamma=0.01),
}
# (FLOPs, latency) on FLUX.1-dev at N = 8 in FeMo's Table 1 (ACM MM 2025 manuscript).
PAPERS = {"Adapted-FeMo, paper": (6.24, 3.94), "TaylorSeer, paper": (6.24, 3.74)}


@dataclass(frozen=True)
class Trial:
    """What to measure: one cache in one engine."""

    method: str
    site: str
    interval: int
    order: int
    cache: Any


@dataclass(frozen=True)
class Row:
    model: str
    device: str
    engine: str
    method: str
    site: str
    interval: int
    order: int
    batch: int
    tokens: int
    full_ms: float
    recording_ms: float
    predicted_ms: float
    latency_speedup: float
    flops_speedup: float
    efficiency: float
    peak_mb: float
    theory_mb: float


def schedule_of(interval: int) -> Schedule:
    return Schedule(interval, RandomFlux.warmup)


def ours(methods: tuple[str, ...], intervals: tuple[int, ...]) -> Iterator[Trial]:
    for interval in intervals:
        for name in methods:
            for site in SITES:
                predictor = OURS[name]
                cache = Cache(predictor, schedule_of(interval), site)
                yield Trial(name.split(",")[0], site, interval, predictor.max_order, cache)


def in_diffusers(engine: InDiffusers) -> Iterator[Trial]:
    from benchmarks.rivals.caches import cache_dit_cache, diffusers_cache

    for order in (1, 2):
        for mode, site in (("standard", "module"), ("lite", "output")):
            yield Trial(f"diffusers TaylorSeer ({mode})", site, 8, order, partial(
                diffusers_cache, engine, cache_interval=8, disable_cache_before_step=RandomFlux.warmup,
                max_order=order, use_lite_mode=mode == "lite"))
        full = schedule_of(8).full_steps(STEPS)
        yield Trial("cache-dit DBCache+TaylorSeer", "hidden", 8, order, partial(
            cache_dit_cache, engine, full, STEPS, order))


def in_comfyui() -> Iterator[Trial]:
    yield next(ours(("FeMo",), (1,)))
    yield from ours(("FeMo",), INTERVALS)
    yield Trial("EasyCache", "output", 0, 0, ("EasyCache", 0.2))


class Bench:
    """One engine's trials, one after the other."""

    def __init__(self, engine: Engine, size: Size, device: str):
        self.engine, self.size, self.device = engine, size, device
        engine.run(2)  # warms up
        self.plain_peak, _ = peak_of(engine, None)
        self.peaks: dict[tuple[str, int, str], tuple[float, int]] = {}  # the interval does not matter to them

    def measure(self, trial: Trial) -> Row:
        steps = self.engine.run(ALL_FULL_STEPS if trial.interval == 1 else STEPS, trial.cache, beside_plain=True)
        full = statistics.median(steps.plain)
        recording, predicted = (statistics.median(steps.relative(ran) or [0.0]) for ran in (True, False))
        count, ran = len(steps.ran), sum(steps.ran)
        latency, flops = count / (ran * recording + (count - ran) * predicted), count / ran
        kind = (trial.method, trial.order, trial.site)
        if kind not in self.peaks:
            self.peaks[kind] = peak_of(self.engine, trial)
        peak, theory = self.peaks[kind]
        return Row(
            self.size.name, self.device, self.engine.name, trial.method, trial.site, trial.interval, trial.order,
            self.size.batch, self.size.tokens, full * 1e3, recording * full * 1e3, predicted * full * 1e3, latency,
            flops, latency / flops, (peak - self.plain_peak) / 1e6, theory / 1e6)


def peak_of(engine: Engine, trial: Trial | None) -> tuple[float, int]:
    """Most bytes of tensors at a time in a short run, and those that the cache says it held."""
    gc.collect()
    cache = trial.cache if trial else None
    if isinstance(cache, Cache):  # with as many buffers after fewer steps
        cache = replace(cache, schedule=schedule_of(METERED_INTERVAL))
    with MemoryMeter() as meter:
        steps: Steps = engine.run(METERED_STEPS if trial else 2, cache)
    return meter.peak, steps.cache_bytes


def engines_of(flux: RandomFlux, host: Path | None) -> Iterator[tuple[Engine, list[Trial]]]:
    every = tuple(OURS)
    yield Standalone(flux), [*ours(every, INTERVALS[:1]), *ours(("FeMo",), INTERVALS[1:])]
    diffusers = InDiffusers(flux)
    yield diffusers, [*in_diffusers(diffusers)]
    if host and flux.device.type == "cpu" and loads_small_fluxes(hosts.version(host)):
        yield InComfyUI(flux, host), [*in_comfyui()]


def rows_of(size: Size, device: torch.device, dtype: torch.dtype, host: Path | None) -> Iterator[Row]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    for engine, trials in engines_of(RandomFlux(size, device, dtype), host):
        bench = Bench(engine, size, name)
        yield from (bench.measure(trial) for trial in tqdm(trials, f"{size.name}, {engine.name}"))


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in asdict(row).items()})


def table(rows: list[Row]) -> str:
    head = ("engine", "method", "site", "O", "N", "FLOPs", "latency", "latency / FLOPs", "full step with recording",
            "predicted step", "memory, MB", "buffers, MB")
    body = [[
        row.engine, row.method, row.site, str(row.order), str(row.interval or "–"), f"{row.flops_speedup:.2f}×",
        f"{row.latency_speedup:.2f}×", f"{row.efficiency:.3f}", f"{row.recording_ms / row.full_ms:.3f}×",
        f"{100 * row.predicted_ms / row.full_ms:.2f} %" if row.predicted_ms else "–", f"{row.peak_mb:.1f}",
        f"{row.theory_mb:.1f}" if row.theory_mb else "–"] for row in rows]
    return markdown(head, body)


def against_others(rows: list[Row]) -> str:
    """Each cache of others beside ours at the same site, of the same order, in as near a host."""
    mine = [row for row in rows if row.method in {name.split(",")[0] for name in OURS}]
    body: list[list[str]] = []
    for other in (row for row in rows if row not in mine):
        host = "ComfyUI" if other.engine == "ComfyUI" else "standalone"
        found = [row for row in mine if (row.engine, row.site, row.interval) == (host, other.site, 8)
                 and row.order == max(1, other.order)]
        if not found:
            continue
        own = found[0]
        pairs = {
            "predicted step": (other.predicted_ms / other.full_ms, own.predicted_ms / own.full_ms),
            "FLOPs per latency": (1 / other.efficiency, 1 / own.efficiency), "memory": (other.peak_mb, own.peak_mb)}
        behind = [name for name, (theirs, ours) in pairs.items() if ours > theirs]
        body.append([
            other.method, other.site, str(other.order),
            *(f"{theirs:.3g} / {ours:.3g}" for theirs, ours in pairs.values()), ", ".join(behind) or "nothing"])
    return markdown(("theirs / ours", "site", "O", "predicted step, of a full one", "FLOPs saved per time saved",
                     "memory, MB", "we are behind in"), body)


def draw(rows: list[Row], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 5))
    marks = {"standalone": "o", "ComfyUI": "s", "diffusers": "^"}
    for row in rows:
        if row.interval == 1:
            continue
        colour = {"hidden": "C0", "output": "C2", "module": "C1"}[row.site]
        axes.plot(row.flops_speedup, row.latency_speedup, marks[row.engine], color=colour, alpha=0.7)
    for name, (flops, latency) in PAPERS.items():
        axes.plot(flops, latency, "x", color="black")
        axes.annotate(name, (flops, latency), textcoords="offset points", xytext=(6, -4), fontsize=8)
    top = max(row.flops_speedup for row in rows) + 0.5
    axes.plot([1, top], [1, top], color="grey", linewidth=0.8)
    for site, colour in (("hidden", "C0"), ("output", "C2"), ("module", "C1")):
        axes.plot([], [], "o", color=colour, label=site)
    for engine, mark in marks.items():
        axes.plot([], [], mark, color="grey", label=engine)
    axes.set(xlabel="fewer FLOPs (times)", ylabel="faster (times)", title=rows[0].model)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def report(rows: list[Row], kind: str) -> str:
    parts = [__doc__.strip(), (
        "Full steps: 3 to warm up, then every N-th; 0: the cache has rules of its own. \"latency / FLOPs\" is 1 where "
        "forecasts cost nothing; FeMo's paper has 0.63, and 0.60 for TaylorSeer. Steps are in times of a full step "
        "without a cache, of the same engine. Memory is the most that tensors took at a time, over the same run "
        "without a cache. Device: " + rows[0].device + ".")]
    for name in dict.fromkeys(row.model for row in rows):
        of_model = [row for row in rows if row.model == name]
        parts.append(f"## {name}: {of_model[0].tokens} tokens, full step {_range(of_model)} ms\n\n{table(of_model)}\n\n"
                     f"Beside others, less is better:\n\n{against_others(of_model)}")
    return "\n\n".join(parts) + f"\n\n![](speed_{kind}.png)\n"


def _range(rows: list[Row]) -> str:
    times = [row.full_ms for row in rows]
    return f"{min(times):.0f} to {max(times):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    kind = parser.parse_args().device
    rows: list[Row] = []
    for size in (*SIZES[kind], NARROW):
        rows.extend(rows_of(size, torch.device(kind), torch.bfloat16, hosts.this_host()))
        write(rows, RESULTS / f"latency_{kind}.csv")
    draw([row for row in rows if row.model == SIZES[kind][0].name], RESULTS / f"speed_{kind}.png")
    (RESULTS / f"speed_{kind}.md").write_text(report(rows, kind), encoding="utf-8")
    print(report(rows, kind))


if __name__ == "__main__":
    main()
