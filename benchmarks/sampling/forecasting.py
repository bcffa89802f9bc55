"""Sampling a small model with its features forecast: femo_core and the pack's sites on a host of thirty lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice

import torch
from benchmarks.pack.run.steps import coordinates_of
from benchmarks.pack.sites import SITES, Embedders, Forecasts
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sampling.solvers import Solver, euler
from benchmarks.sampling.subjects import Job, Level, Options, Subject
from femo_core import ForecastSession, RunReport, Schedule, TaylorSeer
from femo_core.predictor import AbstractPredictor
from femo_core.schedule import AbstractSchedule


def sample(subject: Subject, job: Job, steps: int, predictor: AbstractPredictor, schedule: AbstractSchedule, *,
           site: str = "hidden", coordinate: str = "steps", solver: Solver = euler,
           levels: Sequence[Level] | None = None, tolerance: float = 0.0,
           expected_errors: Mapping[int, float] | None = None,
           on_step: Callable[[int], None] | None = None) -> tuple[Tensor, RunReport]:
    """What the sampler returns after `steps` steps (`Subject.pixels` makes it an image), and what the run did.

    Schedule(interval=1) is the unaccelerated model. `levels` are other noise levels than the usual ones for `steps`.
    """
    levels = levels or subject.levels(steps)
    session = ForecastSession(schedule, predictor, steps, tolerance=tolerance, expected_errors=expected_errors)
    embedders = Embedders()
    coordinates = coordinates_of([level.time for level in levels]) if coordinate == "sigmas" else None

    def derivative(step: int, x: Tensor) -> Tensor:
        session.begin_step(step, coordinates[step] if coordinates else None)
        v = evaluate(
            subject, session, embedders, site, lambda options: subject.derivative(job, x, levels[step], options))
        if on_step:
            on_step(step)
        return v

    with torch.inference_mode():
        started = time.perf_counter()
        x = solver(derivative, subject.start(job, levels[0]), [*(level.sigma for level in levels), 0.0])
        seconds = time.perf_counter() - started
    report = session.report(seconds)
    session.close()
    return x, report


def papers_schedules(warmup: int, total: int, budget: int) -> Iterator[Schedule]:
    """The papers' with just so many full steps, without a cool-down and with a step, where an interval gives them."""
    for cooldown in (0, 1):
        schedules = (Schedule(interval, warmup, cooldown) for interval in range(2, total))
        yield from islice((one for one in schedules if len(one.full_steps(total)) == budget), 1)


class SessionForecasts(Forecasts):
    def __init__(self, session: ForecastSession, streams: Sequence[str]):
        self.session, self.streams = session, streams

    def of(self, name: str) -> Tensor:
        return self.session.forecast(self.streams, name)

    def added(self, name: str, to: Tensor, gate: Tensor) -> Tensor:
        return self.session.forecast_added(self.streams, name, to, gate)


def evaluate(subject: Subject, session: ForecastSession, embedders: Embedders, site: str,
             call: Callable[[Options], Tensor]) -> Tensor:
    """`call` with its network's features recorded, or forecast where the session says so."""
    where, streams = SITES[site], subject.streams
    names = where.features(subject.model, subject.family)
    saved = session.begin_call(streams, names)
    wanted = [] if saved else [stream for stream in streams if session.wants_features(stream)]

    def keep(name: str, feature: Tensor) -> None:
        for stream, part in zip(streams, feature.chunk(len(streams)), strict=True):
            if stream in wanted:
                session.record_site(stream, name, part)

    with ExitStack() as stack:
        options: Options = {}
        if saved:
            stack.enter_context(embedders.passed_by(subject.model, where.needless(subject.family)))
            options = stack.enter_context(
                where.substituting(subject.model, subject.family, options, SessionForecasts(session, streams)))
        elif wanted:
            stack.enter_context(embedders.noted(subject.model, where.needless(subject.family)))
            stack.enter_context(where.recording(subject.model, subject.family, keep))
        result = call(options)
    for stream in wanted:
        session.end_recording(stream)
    session.count_run(saved)
    return result


def count_flops(subject: Subject, job: Job, site: str = "hidden") -> tuple[int, int]:
    """Counted FLOPs of a full and of a predicted step (their matrix products; the forecast itself has none)."""
    def run(interval: int) -> int:
        """Three full steps and, with an interval above 1, a predicted one; else four full ones."""
        # The fused attention of the CPU is not in torch's count; its plain form is.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            sample(subject, job, 4, TaylorSeer(1), Schedule(interval, warmup_steps=3), site=site)
        return counter.get_total_flops()

    full = run(1) // 4
    return full, run(4) - 3 * full
