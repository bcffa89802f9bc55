"""What `make gpu` finds out, stage by stage; each writes a line for every thing that it found."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from benchmarks.pack.sites import Embedders
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.gpu_page import Found
from benchmarks.models.flux_model import FluxConfig
from benchmarks.sampling.forecasting import evaluate
from benchmarks.sampling.subjects import Job
from benchmarks.speed import speed
from benchmarks.speed.cost_growth import timed
from benchmarks.speed.speed_engines import Engine, InDiffusers, RandomFlux, Size, Standalone
from femo_core import FeMo, ForecastSession
from femo_core.kernels import eager
from femo_core.predictor import AbstractPredictor

JOB = Job(("",))
SHORT = 19  # steps: at interval 8 five are full, of which four are timed
TESTS = Path(__file__).resolve().parents[2] / "tests" / "femo_core"


@dataclass(frozen=True)
class Setting:
    """On what: a GPU, or in small for the dry run."""

    device: torch.device
    dtype: torch.dtype
    sizes: tuple[Size, ...]  # of FLUX.1-dev
    narrow: Size
    shapes: tuple[tuple[int, int, int], ...]  # of features
    spread: int  # bytes that inputs lie apart, so that none is still in the GPU's cache
    compiler: str  # of torch.compile
    tests: tuple[str, ...] = ()  # pytest's arguments

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


REAL = Setting(torch.device("cuda"), torch.bfloat16, tuple(speed.SIZES["cuda"]), speed.NARROW,
               ((1, 4096, 3072), (1, 16384, 3072), (1, 64, 128)), spread=1 << 29, compiler="inductor")
DRY = Setting(torch.device("cpu"), torch.float32, (Size("small", FluxConfig(128, 1, 2), side=8, text=4),) * 2,
              Size("narrow", FluxConfig(128, 1, 2), side=4, text=4), ((1, 64, 128),), spread=0, compiler="eager",
              tests=("-k", "can_fail or accumulates_in_float32"))


# 1: is it right?

def checks(setting: Setting, found: Found) -> None:
    say = partial(found.add, "checks", "check")
    say(name="tests/femo_core", **_tests(setting))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        say(name=f"the kernels' proof, {str(dtype).removeprefix('torch.')}", **_proof(setting, dtype))
    flux = RandomFlux(setting.narrow, setting.device, setting.dtype)
    for site in speed.SITES:
        step = PredictedStep(flux, site)
        waits = _waits(setting, step)
        say(name=f"a predicted step waits for nothing, {site}", ok=not waits, said="; ".join(waits))
        right = step().clone()
        again = captured(setting, step)()
        say(name=f"a predicted step in a CUDA graph, {site}", ok=((again - right).norm() <= 1e-3 * right.norm()).item(),
            said="")


def _tests(setting: Setting) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", str(TESTS),
               "--ignore", str(TESTS / "integrations"), *setting.tests]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=75)
    except subprocess.TimeoutExpired:
        return {"ok": False, "said": "not finished after 75 seconds"}
    lines = (ran.stdout + ran.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))][:10]
    return {"ok": ran.returncode == 0, "said": "; ".join([*failed, *lines[-1:]])}


def _proof(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    if setting.device.type == "cpu":
        return {"ok": True, "said": "not on a CPU"}
    try:
        from femo_core.kernels import fused

        fused.prove(setting.device, dtype)
    except Exception as error:  # whatever it is, it is what was to be found out
        return {"ok": False, "said": f"{type(error).__name__}: {error}"[:300]}
    return {"ok": True, "said": ""}


def _waits(setting: Setting, step: Callable[[], object]) -> list[str]:
    """Places that wait for the device."""
    if setting.device.type == "cpu":
        step()
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]


class PredictedStep:
    """A run that stopped before a predicted step, which can be made again and again: timed, profiled or captured."""

    def __init__(self, flux: RandomFlux, site: str, predictor: AbstractPredictor | None = None):
        self.flux, self.site = flux, site
        self.predictor = predictor or FeMo(1, beta=0.2)
        self.session = ForecastSession(speed.schedule_of(8), self.predictor, speed.STEPS)
        self.embedders = Embedders()
        self.levels = flux.levels(speed.STEPS)
        self.x = flux.start(JOB, self.levels[0])
        self.next = 0
        for step in (*range(flux.warmup), flux.warmup + 1):  # the last one is predicted: what is found out once is now
            self.next = step
            self()

    def __call__(self) -> Tensor:
        self.session.begin_step(self.next)
        return evaluate(self.flux, self.session, self.embedders, self.site, partial(
            self.flux.derivative, JOB, self.x, self.levels[self.next]))

    def plain(self) -> Tensor:
        """The same step without a cache."""
        return self.flux.derivative(JOB, self.x, self.levels[self.next], {})

    def bytes_needed(self) -> int:
        """What it must read and write: buffers, the features it makes, and the weights of modules that run."""
        weights: dict[int, int] = {}

        def note(module: torch.nn.Module, *_: object) -> None:
            weights.update({id(part): part.nbytes for part in module.parameters(recurse=False)})

        handles = [module.register_forward_pre_hook(note) for module in self.flux.model.modules()]
        self()
        for handle in handles:
            handle.remove()
        buffers = self.session.cache.nbytes
        made = buffers // self.predictor.buffer_count
        return buffers + made * (2 if self.site == "module" else 1) + sum(weights.values())  # module: the state is read


def captured(setting: Setting, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`call` in a CUDA graph; on a CPU as it is."""
    if setting.device.type == "cpu":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


# 2: how much of what the memory can do does a predicted step do?

def profiled(setting: Setting, found: Found) -> None:
    bandwidth = copy_bandwidth(setting)
    found.add("profile", "copy", bytes_per_second=bandwidth)
    flux = RandomFlux(setting.sizes[0], setting.device, setting.dtype)
    for site in ("module", "hidden", "output"):
        step = PredictedStep(flux, site)
        seconds, needed = mean_of(setting, [step], 30), step.bytes_needed()
        kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (setting.device.type == "cuda")]
        with profile(activities=kinds) as seen:
            step()
            setting.wait()
        kernels = sorted(_kernels(setting, seen), key=lambda one: -one[1])
        busy = sum(each for _, each, _ in kernels)
        found.add("profile", "step", model=setting.sizes[0].name, site=site, ms=1e3 * seconds, busy_ms=1e3 * busy,
                  mb=needed / 1e6, share=needed / seconds / bandwidth, busy_share=needed / max(busy, 1e-9) / bandwidth,
                  launches=sum(count for _, _, count in kernels),
                  kernels=[(name[:60], round(1e3 * each, 4), count) for name, each, count in kernels[:6]])
        del step


def _kernels(setting: Setting, seen: Any) -> Iterator[tuple[str, float, int]]:
    """Name, seconds and count: of what ran on the device, not of the operations that started it."""
    of = "self_device_time_total" if setting.device.type == "cuda" else "self_cpu_time_total"
    for event in seen.key_averages():
        seconds = getattr(event, of) / 1e6
        if seconds > 0 and event.device_type.name.lower() == setting.device.type:
            yield event.key, seconds, event.count


def copy_bandwidth(setting: Setting) -> float:
    """Bytes a second, read and written."""
    source = torch.ones(max(setting.spread, 1 << 24) // 4, device=setting.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / mean_of(setting, [partial(target.copy_, source)], 20)


def mean_of(setting: Setting, calls: Sequence[Callable[[], object]], times: int) -> float:
    """Seconds of one of the calls, made in turn, one after the other without a wait between."""
    upcoming = cycle(calls)
    for _ in range(2 * len(calls)):
        next(upcoming)()
    setting.wait()
    started = time.perf_counter()
    for _ in range(times):
        next(upcoming)()
    setting.wait()
    return (time.perf_counter() - started) / times


# 3: FLUX.1-dev at its real size

def flux_sized(setting: Setting, found: Found) -> None:
    """What is asked for most comes first: time may run out."""
    usual = ("FeMo", "TaylorSeer, O=2")
    for size in setting.sizes:
        flux = RandomFlux(size, setting.device, setting.dtype)
        rows(setting, found, "flux", Standalone(flux), usual)
        del flux
    flux = RandomFlux(setting.sizes[0], setting.device, setting.dtype)
    try:
        engine = InDiffusers(flux)
        trials = [*speed.in_diffusers(engine)]
    except ImportError as error:
        found.add("flux", "missing", what="diffusers' TaylorSeer and cache-dit", said=str(error))
    else:
        plain, _ = _peak(setting, partial(engine.run, 2))
        for trial in trials:
            try:
                rows_of_trial(setting, found, "flux", engine, trial, speed.STEPS, (8,), plain)
            except ImportError as error:
                found.add("flux", "missing", what=trial.method, said=str(error))
    rows(setting, found, "flux", Standalone(flux), tuple(name for name in speed.OURS if name not in usual))


def rows(setting: Setting, found: Found, stage: str, engine: Standalone, methods: tuple[str, ...],
         steps: int = SHORT) -> None:
    plain, _ = _peak(setting, partial(engine.run, 2))
    for trial in speed.ours(methods, (8,)):
        rows_of_trial(setting, found, stage, engine, trial, steps, (8, 4), plain)


def rows_of_trial(setting: Setting, found: Found, stage: str, engine: Engine, trial: speed.Trial, steps: int,
                  intervals: tuple[int, ...], plain: int) -> None:
    """Rows of `speed`: a step of each kind is timed, and a whole run of 50 reckoned from it for each interval.

    A cache of others has full steps of its own, which are counted. plain: most bytes without a cache.
    """
    size = engine.flux.size  # type: ignore[attr-defined]
    peak, ran = _peak(setting, partial(engine.run, steps, trial.cache, beside_plain=True))
    full = _median(ran.plain)
    recording, predicted = (_median(ran.relative(did) or [0.0]) for did in (True, False))
    for interval in intervals:
        count = speed.STEPS
        runs = len(speed.schedule_of(interval).full_steps(count)) if isinstance(engine, Standalone) else sum(ran.ran)
        latency, flops = count / (runs * recording + (count - runs) * predicted), count / runs
        found.add(stage, "row", row=asdict(speed.Row(
            size.name, found.device, engine.name, trial.method, trial.site, interval, trial.order, size.batch,
            size.tokens, full * 1e3, recording * full * 1e3, predicted * full * 1e3, latency, flops, latency / flops,
            (peak - plain) / 1e6, ran.cache_bytes / 1e6)))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _peak(setting: Setting, call: Callable[[], Any]) -> tuple[int, Any]:
    """Most bytes that the GPU's allocator gave out at a time, and what was returned."""
    if setting.device.type == "cpu":
        return 0, call()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    return torch.cuda.max_memory_allocated(), result


# 4: is a kernel of our own worth it?

def kernels(setting: Setting, found: Found) -> None:
    bandwidth = copy_bandwidth(setting)
    for shape in setting.shapes:
        for name, (ours, plain, passes) in SUMS.items():
            engines = {"fused": _fused(setting, ours), "PyTorch": partial(ours, eager),
                       "torch.compile": torch.compile(plain, dynamic=False, backend=setting.compiler)}
            feature_bytes = torch.Size(shape).numel() * setting.dtype.itemsize
            copies = 1 + setting.spread // (3 * feature_bytes)
            inputs = [_inputs(setting, shape) for _ in range(min(copies, 64))]
            for engine, sums in engines.items():
                if sums is None:
                    continue
                try:
                    seconds = mean_of(setting, [partial(sums, *each) for each in inputs], 4 * max(len(inputs), 8))
                except Exception as error:  # a compiler's failure is a finding too
                    said = f"{type(error).__name__}: {error}"[:300]
                    found.add("kernels", "missing", what=f"{engine}, {name}", said=said)
                    continue
                found.add("kernels", "sum", name=name, shape=list(shape), engine=engine, ms=1e3 * seconds,
                          share=passes * feature_bytes / seconds / bandwidth)
            torch.compiler.reset()


def _inputs(setting: Setting, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A stack of two, a feature, a gate, and room for a result."""
    stack = torch.randn((2, *shape), device=setting.device, dtype=setting.dtype)
    return stack, torch.randn_like(stack[0]), torch.randn_like(stack[0, :, :1]), torch.empty_like(stack[0])


def _fused(setting: Setting, ours: Callable[..., object]) -> Callable[..., object] | None:
    if setting.device.type == "cpu":
        return None
    from femo_core.kernels import fused

    return partial(ours, fused)


WEIGHTS = (1.0, 1.7)  # of a forecast at O = 1
ROWS = ((0.0, 0.0, 1.0), (-0.1, 0.2, 0.1))  # of FeMo's update at O = 1


def _forecast(stack: Tensor) -> Tensor:
    return WEIGHTS[0] * stack[0].float() + WEIGHTS[1] * stack[1].float()


def _combine(stack: Tensor, feature: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    return out.copy_(_forecast(stack))


def _added(stack: Tensor, feature: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    return out.copy_(feature.float() + gate.float() * _forecast(stack))


def _update(stack: Tensor, feature: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    momentum = sum(weight * part.float() for weight, part in zip(ROWS[1], (*stack, feature), strict=True))
    stack[1].copy_(momentum)
    stack[0].copy_(feature)
    return stack


def _compare(stack: Tensor, feature: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    truth, forecast = feature.float(), _forecast(stack)
    return torch.stack([part.square().flatten(1).sum(1).sqrt() for part in (truth, forecast, forecast - truth)])


SUMS: dict[str, tuple[Callable[..., object], Callable[..., Tensor], int]] = {
    # by our kernels, in plain PyTorch for the compiler, and how many times the feature's bytes pass at the least
    "a forecast": (lambda engine, stack, feature, gate, out: engine.combine(WEIGHTS, stack, out), _combine, 3),
    "a gated forecast": (
        lambda engine, stack, feature, gate, out: engine.add_gated(feature, gate, WEIGHTS, stack, out), _added, 4),
    "an update": (
        lambda engine, stack, feature, gate, out: engine.transform(ROWS, stack, feature, reuse=True), _update, 5),
    "a comparison": (lambda engine, stack, feature, gate, out: engine.compare(WEIGHTS, stack, feature), _compare, 3),
}


# 5: what do launches cost, where a network is small?

def narrow(setting: Setting, found: Found) -> None:
    flux = RandomFlux(setting.narrow, setting.device, setting.dtype)
    rows(setting, found, "narrow", Standalone(flux), ("FeMo",), speed.STEPS)
    for site in speed.SITES:
        step = PredictedStep(flux, site)
        calls = {"full": step.plain, "predicted": step, "full, in a graph": captured(setting, step.plain),
                 "predicted, in a graph": captured(setting, step)}
        found.add("narrow", "graph", model=setting.narrow.name, site=site,
                  ms={name: 1e3 * timed(call, setting.device) for name, call in calls.items()})


STAGES: dict[str, Callable[[Setting, Found], None]] = {
    "checks": checks, "profile": profiled, "flux": flux_sized, "kernels": kernels, "narrow": narrow}
