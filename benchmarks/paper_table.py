"""`make bench`: the papers' tables in small, on the tiny Flux and the tiny DiT.

Every row is one way to sample: pictures of 3 seeds are compared with the full run's and with the limit of very many
steps. Rows go to results/paper_table.csv as they are measured, and are not measured again; delete the file to start
afresh. pages/tables.py makes the tables of docs/measured.md and the figure of it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.models import drawings
from benchmarks.models.classifier import accuracy, train_classifier
from benchmarks.pages.results import RESULTS
from benchmarks.sampling.forecasting import count_flops, sample
from benchmarks.sampling.jobs import LIMIT_STEPS, SEEDS, STEPS, TUNING_SEEDS, for_tuning, random_job, random_prompts
from benchmarks.sampling.metrics import METRICS, frechet, over_seeds
from benchmarks.sampling.solvers import Solver, adams_bashforth, ancestral, euler
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux
from benchmarks.training.training import pixels_of
from femo_core import FeMo, RunReport, Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor
from femo_core.presets import PAPERS, Preset

COLUMNS = (
    "model", "method", "steps", "of_steps", "sampler", "interval", "order", "beta", "start", "adaptive", "beta_min",
    "beta_max", "site", "cooldown", "full_steps", "flops_speedup", "wall_speedup",
    "rmse", "rmse_se", "psnr", "psnr_se", "ssim", "ssim_se",
    "rmse_limit", "rmse_limit_se", "psnr_limit", "psnr_limit_se", "ssim_limit", "ssim_limit_se",
    "seeds", "samples", "frechet", "accuracy", "frechet_samples",
)
KEY = COLUMNS[:14]  # what a row is; the rest is measured
Row = dict[str, Any]

# The nodes' defaults before 0.2, which the tables show; the present ones are measured in results/regimes.md.
EARLIER = {
    "FLUX": Preset(FeMo(2, beta=0.1, momentum_start="feature"), warmup_steps=3, cooldown_steps=1),
    "DiT": Preset(FeMo(1, beta=0.1, momentum_start="feature"), warmup_steps=2, cooldown_steps=1),
}
HEADLINE_SAMPLES = 1000
INTERVALS = range(3, 11)
HEADLINE_INTERVALS = (4, 6, 8)
SOLVERS = ("dpmpp_2m", "uni_pc", "deis")  # ComfyUI's, that users pick where they want fewer steps
THRESHOLDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # of EasyCache and LazyCache; their default is 0.2
STARTS: tuple[Literal["zero", "feature"], ...] = ("zero", "feature")
BETAS = {"euler": tuple(i / 10 for i in range(-5, 6)), "ancestral": tuple(i / 10 for i in range(10))}  # tried
PLAIN_STEPS = (30, 25, 20, 17, 14, 12, 11, 10, 9, 8, 7)  # 60, 50, 40 and 34 %, DDIM's, and as many as forecasting runs


@dataclass(frozen=True)
class Method:
    """A way to spend the network runs: a predictor under the name that tables use."""

    name: str
    predictor: AbstractPredictor


@dataclass(frozen=True)
class Spec:
    """One row to measure."""

    method: Method
    steps: int = STEPS
    of_steps: int = STEPS  # of the full run that it stands in for
    sampler: str = "euler"
    interval: int = 1
    cooldown: int = 0
    site: str = "hidden"
    grid_of: Schedule | None = None  # run on the noise levels of this schedule's full steps alone

    def key(self, subject: Subject) -> tuple[str, ...]:
        fields: dict[str, Any] = {
            "model": subject.name, "method": self.method.name, "steps": self.steps, "of_steps": self.of_steps,
            "sampler": self.sampler}
        predictor = self.method.predictor
        if self.grid_of:
            fields |= {"interval": self.grid_of.interval, "cooldown": self.grid_of.cooldown_steps}
        elif self.interval > 1:
            fields |= {"interval": self.interval, "cooldown": self.cooldown, "site": self.site,
                       "order": predictor.max_order}
        if isinstance(predictor, FeMo):
            fields |= {"beta": predictor.beta, "start": predictor.momentum_start}
            if predictor.gamma:
                fields |= {"adaptive": predictor.gamma, "beta_min": predictor.beta_min, "beta_max": predictor.beta_max}
        return key_of(**fields)


def key_of(**fields: Any) -> tuple[str, ...]:
    """Of a row with these columns; the others are empty."""
    known = {"steps": STEPS, "of_steps": STEPS, "sampler": "euler"} | fields
    return tuple(str(known.get(name, "")) for name in KEY)


FULL = Method("full", TaylorSeer(0))
FEWER = Method("fewer steps", TaylorSeer(0))
FORA = Method("FORA", TaylorSeer(0))
EULER_ON_GRID = Method("Euler on the full steps", TaylorSeer(0))
AB_ON_GRID = Method("Adams–Bashforth on the full steps", TaylorSeer(0))

Tuned = dict[tuple[int, str], float]
"""β by order and start rule, as `tune` found it."""


def methods(subject: Subject, tuned: Tuned) -> dict[str, Method]:
    """What is compared, by a short name."""
    family = subject.preset
    first = PAPERS[f"FeMo, {family}, O=1"]
    paper = {1: first.predictor.beta, 2: PAPERS.get(f"FeMo, {family}, O=2", first).predictor.beta}
    found = {"FORA": FORA} | {f"TaylorSeer {order}": Method("TaylorSeer", TaylorSeer(order)) for order in (1, 2, 3, 4)}
    for order, start in itertools.product((1, 2), STARTS):
        for name, beta in (("paper", paper[order]), ("tuned", tuned[order, start])):
            found[f"FeMo {order} {name} {start}"] = Method("FeMo", FeMo(order, beta=beta, momentum_start=start))
    adapted = [name for name in PAPERS if name.startswith(f"Adapted-FeMo, {family}")]
    for name in adapted:
        found[f"Adapted {name[-1]} paper"] = Method("Adapted-FeMo", PAPERS[name].predictor)
    found["FeMo default"] = Method("FeMo", EARLIER[family].predictor)
    beta = tuned[1, "zero"]
    found["Adapted 1 tuned"] = Method("Adapted-FeMo", FeMo(
        1, beta=beta, gamma=0.0125, beta_min=round(beta - 0.125, 3), beta_max=min(0.95, round(beta + 0.125, 3))))
    return found


MAIN = ("FORA", "TaylorSeer 1", "TaylorSeer 2", "FeMo 1 paper zero", "FeMo 1 tuned zero", "FeMo default",
        "Adapted 1 paper")


def plan(subject: Subject, tuned: dict[str, Tuned], full: bool) -> list[Spec]:
    """The rows of a model, all of them where `full`. `tuned` by sampler."""
    smooth, noisy = methods(subject, tuned["euler"]), methods(subject, tuned["ancestral"])
    main = [smooth[name] for name in MAIN]
    specs = [Spec(FULL)]
    matched = {network_runs(subject, STEPS, n, cooldown) for n in INTERVALS for cooldown in (0, 1)}
    specs += [Spec(FEWER, steps) for steps in sorted({*PLAIN_STEPS, *matched}, reverse=True)]
    for cooldown, interval in itertools.product((1, 0), INTERVALS):
        telling = interval in HEADLINE_INTERVALS
        if full or telling or cooldown:
            some = smooth.values() if full or (telling and cooldown) else main
            specs += [Spec(method, interval=interval, cooldown=cooldown) for method in some]
            grid = Schedule(interval, subject.warmup, cooldown)
            specs += [Spec(EULER_ON_GRID, grid_of=grid), Spec(AB_ON_GRID, sampler="ab2", grid_of=grid)]
    specs += [Spec(method, interval=6, cooldown=cooldown, site=site)
              for cooldown in ((1, 0) if full else (1,)) for site in ("module", "output")
              for method in (smooth.values() if full else main)]
    for steps in (20, 28):
        specs.append(Spec(FULL, steps, steps))
        choices = list(itertools.product((2, 3, 4), (1, 0)))
        specs += [Spec(method, steps, steps, interval=interval, cooldown=cooldown)
                  for interval, cooldown in choices for method in main]
        specs += [Spec(FEWER, count, steps) for count in sorted({network_runs(subject, steps, *c) for c in choices})]
    specs.append(Spec(FULL, sampler="ancestral"))
    specs += [Spec(method, sampler="ancestral", interval=interval, cooldown=cooldown)
              for cooldown in ((1, 0) if full else (1,)) for interval in (4, 8) for method in noisy.values()]
    return list(dict.fromkeys(specs))


def headline(subject: Subject, tuned: Tuned, table: Table) -> list[Spec]:
    """Rows that are also judged by the classifier. Which TaylorSeer is best the table tells."""
    found = methods(subject, tuned)

    def quality(method: Method) -> float:
        specs = [Spec(method, interval=n, cooldown=1) for n in HEADLINE_INTERVALS]
        return float(np.mean([float(table.rows[spec.key(subject)]["psnr"]) for spec in specs]))

    best = max((method for name, method in found.items() if name.startswith("TaylorSeer")), key=quality)
    chosen = [FORA, best, found["FeMo default"], found["Adapted 1 paper"]]
    counts = sorted({network_runs(subject, STEPS, n, 1) for n in HEADLINE_INTERVALS}, reverse=True)
    return [Spec(FULL), *(Spec(FEWER, count) for count in counts),
            *(Spec(method, interval=n, cooldown=1) for n in HEADLINE_INTERVALS for method in chosen)]


def network_runs(subject: Subject, steps: int, interval: int, cooldown: int) -> int:
    return len(Schedule(interval, subject.warmup, cooldown).full_steps(steps))


class Bench:
    """Measures rows of one model. Its references, the full runs, are made once for each number of steps and sampler."""

    def __init__(self, subject: Subject, samples: int, seeds: tuple[int, ...] = SEEDS, tuning: bool = False):
        """samples: a seed's."""
        self.subject, self.samples, self.seeds, self.with_limit = subject, samples, seeds, not tuning
        self.job = random_job(seeds, samples, tuning)
        self._references: dict[tuple[int, str], tuple[Tensor, float]] = {}
        self._flops: dict[str, tuple[int, int]] = {}
        self._limit: Tensor | None = None

    def run(self, spec: Spec, job: Job | None = None) -> tuple[Tensor, RunReport]:
        """Pixels and report."""
        job = job or self.job
        solvers: dict[str, Solver] = {
            "euler": euler, "ab2": adams_bashforth, "ancestral": ancestral(self.subject.signal, seed=12345)}
        levels = self.subject.levels(spec.steps)
        if spec.grid_of:
            levels = [levels[i] for i in spec.grid_of.full_steps(spec.steps)]
        schedule = Schedule(spec.interval, self.subject.warmup, spec.cooldown)
        result, report = sample(self.subject, job, len(levels), spec.method.predictor, schedule, site=spec.site,
                                solver=solvers[spec.sampler], levels=levels)
        return self.subject.pixels(result), report

    def reference(self, steps: int, sampler: str) -> tuple[Tensor, float]:
        """The full run's pixels and seconds."""
        if (steps, sampler) not in self._references:
            self.run(Spec(FULL, 2))  # warms up the allocator and the thread pool
            pixels, report = self.run(Spec(FULL, steps, sampler=sampler))
            self._references[steps, sampler] = pixels, report.seconds
        return self._references[steps, sampler]

    def limit(self) -> Tensor:
        if self._limit is None:
            self._limit = self.run(Spec(FULL, LIMIT_STEPS, sampler="ab2"))[0]
        return self._limit

    def measure(self, spec: Spec) -> Row:
        """The row's figures, without the classifier's."""
        if spec.site not in self._flops:
            small = Job(self.job.prompts[:1])
            self._flops[spec.site] = count_flops(self.subject, small, spec.site)
        full, predicted = self._flops[spec.site]
        sampler = "ancestral" if spec.sampler == "ancestral" else "euler"
        reference, seconds = self.reference(spec.of_steps, sampler)
        pixels, report = self.run(spec)
        spent = report.network_runs * full + report.network_runs_saved * predicted
        return {
            "full_steps": report.network_runs, "flops_speedup": spec.of_steps * full / spent,
            "wall_speedup": seconds / report.seconds,
            **self.compared(pixels, sampler, None if spec.method is FULL else reference),
        }

    def compared(self, pixels: Tensor, sampler: str = "euler", reference: Tensor | None = None) -> Row:
        """Distances to the `reference` and, of samplers that have one, to the limit of very many steps."""
        row: Row = {"seeds": len(self.seeds), "samples": len(pixels)}
        if reference is not None:
            row |= self.distances(pixels, reference)
        if self.with_limit and sampler == "euler":
            row |= self.distances(pixels, self.limit(), "_limit")
        return row

    def distances(self, pixels: Tensor, reference: Tensor, suffix: str = "") -> Row:
        """Each metric's mean over the seeds and its standard error."""
        row: Row = {}
        for name, metric in METRICS.items():
            row[name + suffix], row[f"{name}{suffix}_se"] = over_seeds(metric, pixels, reference, self.samples)
        return row


class Judge:
    """The classifier's view of many samples."""

    def __init__(self, bench: Bench):
        self.bench, subject = bench, bench.subject
        images, words = drawings.draw_many(8000, seed=555)
        names = [(drawings.WORDS[c], drawings.WORDS[t]) for c, t, _ in words.tolist()]
        pixels, kept = subject.drawing(pixels_of(images)), torch.tensor([not for_tuning(*n) for n in names])
        self.real = pixels[kept]
        self.classifier = train_classifier(pixels, torch.from_numpy(words))
        prompts = random_prompts(1000, HEADLINE_SAMPLES)
        self.jobs = [Job(prompts[i : i + 50], 1000 + i) for i in range(0, len(prompts), 50)]
        self.words = torch.tensor([[drawings.WORDS.index(word) for word in prompt.split()] for prompt in prompts])

    def __call__(self, spec: Spec) -> Row:
        pixels = torch.cat([self.bench.run(spec, job)[0] for job in self.jobs])
        right = accuracy(self.classifier, pixels, self.words)
        return {"frechet": frechet(self.classifier, pixels, self.real),
                "accuracy": float(np.mean(list(right.values()))), "frechet_samples": len(pixels)}


class Table:
    """The CSV, rewritten after every row: an interrupted run goes on where it was."""

    def __init__(self, path: Path):
        self.path, self.rows = path, dict[tuple[str, ...], Row]()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}

    def forget_outdated(self, keys: set[tuple[str, ...]]) -> None:
        """Drops rows of FeMo that no plan has: of a β that was tuned anew since."""
        self.rows = {key: row for key, row in self.rows.items()
                     if key in keys or row["method"] not in ("FeMo", "Adapted-FeMo")}

    def add(self, key: tuple[str, ...], figures: Row) -> None:
        rounded = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in figures.items()}
        self.rows[key] = self.rows.get(key, {}) | dict(zip(KEY, key, strict=True)) | rounded
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows.values())
        partial.replace(self.path)


def tune(bench: Bench, table: Table, sampler: str) -> Tuned:
    """β of the highest PSNR, mean over N = 4, 6, 8, on the tuning's seeds and classes. (Not the RMSE, in which a few
    pictures that turn into others outweigh all that stay.)"""
    best: dict[tuple[int, str], tuple[float, float]] = {}
    for order, start, beta in tqdm(list(itertools.product((1, 2), STARTS, BETAS[sampler])),
                                   desc=f"{bench.subject.name}, tuning, {sampler}", unit="β"):
        quality = []
        for interval in HEADLINE_INTERVALS:
            method = Method("FeMo", FeMo(order, beta=beta, momentum_start=start))
            spec = Spec(method, sampler=sampler, interval=interval, cooldown=1)
            key = spec.key(bench.subject)
            if key not in table.rows:
                table.add(key, bench.measure(spec))
            quality.append(float(table.rows[key]["psnr"]))
        found = float(np.mean(quality)), beta
        best[order, start] = max(found, best.get((order, start), found))
    return {key: beta for key, (_, beta) in best.items()}


def tuned_betas(subject: Subject, samples: int, tuning: Table) -> dict[str, Tuned]:
    """By sampler."""
    tuner = Bench(subject, samples, TUNING_SEEDS, tuning=True)
    return {sampler: tune(tuner, tuning, sampler) for sampler in ("euler", "ancestral")}


def measure(bench: Bench, specs: list[Spec], table: Table) -> None:
    """The rows that the table lacks."""
    lacking = [spec for spec in specs if not table.rows.get(spec.key(bench.subject), {}).get("full_steps")]
    for spec in tqdm(lacking, desc=bench.subject.name, unit="row"):
        table.add(spec.key(bench.subject), bench.measure(spec))


def judge(bench: Bench, specs: list[Spec], table: Table) -> None:
    """The classifier's figures that the table lacks."""
    lacking = [spec for spec in specs if not table.rows.get(spec.key(bench.subject), {}).get("frechet")]
    if lacking:
        judged = Judge(bench)
        for spec in tqdm(lacking, desc=f"{bench.subject.name}, {HEADLINE_SAMPLES} samples", unit="row"):
            table.add(spec.key(bench.subject), judged(spec))


def measure_rivals(bench: Bench, table: Table) -> None:
    """diffusers' TaylorSeer and cache-dit's on the tiny Flux, at about our numbers of full steps."""
    from benchmarks.rivals.caches import DiffusersFlux, cache_dit_cache, diffusers_cache, flops_of

    flux = DiffusersFlux()

    def engines(interval: int, order: int) -> Iterator[tuple[str, int, Callable[[], AbstractContextManager[None]]]]:
        """Name, cool-down and cache."""
        ours = Schedule(interval, 3, 1).full_steps(STEPS)
        yield "cache-dit DBCache+TaylorSeer", 1, partial(cache_dit_cache, flux, ours, STEPS, order)
        for cooldown, mode in itertools.product((0, 1), ("standard", "lite")):
            yield f"diffusers TaylorSeer ({mode})", cooldown, partial(
                diffusers_cache, flux, cache_interval=interval, disable_cache_before_step=3, max_order=order,
                use_lite_mode=mode == "lite", disable_cache_after_step=STEPS - 1 if cooldown else None)

    runs = [(interval, order, *engine) for interval in HEADLINE_INTERVALS for order in (1, 2)
            for engine in engines(interval, order)]
    full: tuple[float, int] | None = None
    for interval, order, name, cooldown, cache in tqdm(runs, desc="rival engines", unit="row"):
        key = key_of(model="tiny Flux", method=name, interval=interval, order=order, cooldown=cooldown)
        if table.rows.get(key, {}).get("full_steps"):
            continue
        if full is None:
            flux.run(bench.job, 2)
            full = flux.run(bench.job, STEPS)[2], flops_of(flux, nullcontext, STEPS)
        with cache():
            pixels, count, seconds = flux.run(bench.job, STEPS)
        table.add(key, {"full_steps": count, "flops_speedup": full[1] / flops_of(flux, cache, STEPS),
                        "wall_speedup": full[0] / seconds,
                        **bench.compared(pixels, reference=bench.reference(STEPS, "euler")[0])})


def measure_hosted(bench: Bench, table: Table) -> None:
    """Through a real ComfyUI, where one is found: other samplers, ours under them, EasyCache and LazyCache."""
    from benchmarks.engines.hosted import Hosted, hosts

    if hosts.this_host() is None:
        tqdm.write(hosts.MISSING)
        return
    subject, hosted = bench.subject, Hosted(bench.subject, hosts.this_host())
    default = EARLIER[subject.preset].predictor
    assert isinstance(default, FeMo)
    ours = {"method": "FeMo in ComfyUI", "order": default.max_order, "beta": default.beta,
            "start": default.momentum_start, "cooldown": 1}
    runs: list[tuple[tuple[str, ...], int, str, Callable[[], Any]]] = []
    for sampler in ("euler", *SOLVERS):
        for interval in HEADLINE_INTERVALS:
            if sampler != "euler":
                count = network_runs(subject, STEPS, interval, 1)
                runs.append((key_of(model=subject.name, method="fewer steps", steps=count, sampler=sampler), count,
                             sampler, lambda: hosted.model))
            runs.append((key_of(model=subject.name, sampler=sampler, interval=interval, **ours), STEPS, sampler,
                         partial(hosted.cached, default, Schedule(interval, hosted.subject.warmup, 1))))
    for name, threshold in itertools.product(("EasyCache", "LazyCache"), THRESHOLDS):
        runs.append((key_of(model=subject.name, method=f"ComfyUI {name} {threshold}"), STEPS, "euler",
                     partial(hosted.rival, name, threshold)))
    references: dict[str, tuple[Tensor, float]] = {}
    for key, steps, sampler, model in tqdm(runs, desc=f"{subject.name} in ComfyUI", unit="row"):
        if table.rows.get(key, {}).get("full_steps"):
            continue
        if sampler not in references:
            hosted.run(hosted.model, bench.job, 2, sampler)
            pixels, _, seconds = hosted.run(hosted.model, bench.job, STEPS, sampler)
            references[sampler] = pixels, seconds
        pixels, count, seconds = hosted.run(model(), bench.job, steps, sampler)
        table.add(key, {"full_steps": count, "wall_speedup": references[sampler][1] / seconds,
                        **bench.compared(pixels, reference=references[sampler][0])})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--full", action="store_true", help="all rows; without it those that docs/measured.md shows")
    arguments.add_argument("--samples", type=int, default=16, help="pictures of each of the 3 seeds")
    arguments.add_argument("--out", type=Path, default=RESULTS)
    options = arguments.parse_args()
    table, tuning = Table(options.out / "paper_table.csv"), Table(options.out / "tuning.csv")
    benches = [Bench(subject, options.samples) for subject in (TinyFlux(), TinyDiT())]
    tuned = {bench.subject.name: tuned_betas(bench.subject, options.samples, tuning) for bench in benches}
    tqdm.write(f"tuned β by model, sampler, order and start rule: {tuned}")
    everything = {bench.subject.name: plan(bench.subject, tuned[bench.subject.name], full=True) for bench in benches}
    table.forget_outdated({spec.key(bench.subject) for bench in benches for spec in everything[bench.subject.name]})
    for bench in benches:
        measure(bench, plan(bench.subject, tuned[bench.subject.name], options.full), table)
    for bench in benches:
        measure_hosted(bench, table)
    measure_rivals(benches[0], table)
    for bench in benches:
        judge(bench, headline(bench.subject, tuned[bench.subject.name]["euler"], table), table)


if __name__ == "__main__":
    main()
