"""What is measured of a run: forecast errors, adapted β, times, and what the network did and was spared."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..plans.readback import Readback
from ..report import RunReport

# What a report holds at most: rows of errors, and of β; streams that have any; samples of which a row has the β.
MOST_ROWS, MOST_STREAMS, MOST_SAMPLES, MOST_WARNINGS = 1000, 50, 64, 50


class Measurements:
    """Of one run. Nothing is waited for before the report."""

    def __init__(self) -> None:
        self.runs = 0  # of the network
        self.saved = 0
        self._ran: set[int] = set()  # steps in which the network did
        self._forecast: set[int] = set()  # and in which it was spared
        self._errors: dict[tuple[float, Hashable], Readback] = {}
        self._betas: dict[tuple[float, Hashable], Readback] = {}
        self._began = math.nan  # the evaluation, by the clock
        self._network_ran = False  # in it
        self._spared = False
        self._seconds: dict[bool, list[float]] = {True: [], False: []}  # of evaluations, by whether it did
        self._warnings: dict[str, None] = {}  # ordered, each once

    def end_evaluation(self) -> None:
        """And the next one begins."""
        now = time.perf_counter()
        if not math.isnan(self._began):
            self._seconds[self._network_ran].append(now - self._began)
        self._began, self._network_ran, self._spared = now, False, False

    def attribute(self, index: int) -> None:
        """What was done in the present evaluation was done at this step."""
        if self._network_ran:
            self._ran.add(index)
        if self._spared:
            self._forecast.add(index)

    def count_run(self, index: int, saved: bool) -> None:
        """A call of the network at this step was forecast instead (`saved`), or made."""
        if saved:
            self.saved += 1
            self._spared = True
            self._forecast.add(index)
        else:
            self.runs += 1
            self._network_ran = True
            self._ran.add(index)

    def error(self, step: float, stream: Hashable, error: Tensor) -> Readback:
        """A scalar on the device: of what would have been forecast."""
        readback = self._errors[step, stream] = Readback(error)
        return readback

    def beta(self, step: float, stream: Hashable, beta: Tensor) -> None:
        """(B,), on the device."""
        self._betas[step, stream] = Readback(beta)

    def warn(self, message: str) -> None:
        if len(self._warnings) < MOST_WARNINGS:
            self._warnings[message] = None

    def report(self, total_steps: int, seconds: float, cache_bytes: int, reason: str, settings: dict[str, Any],
               wait: bool) -> RunReport:
        """wait: for values that the device has not sent yet; else they are left out."""
        return RunReport(
            total_steps=total_steps,
            full_steps=tuple(sorted(self._ran)),
            predicted_steps=tuple(sorted(self._forecast - self._ran)),
            network_runs=self.runs,
            network_runs_saved=self.saved,
            seconds=seconds,
            cache_bytes=cache_bytes,
            seconds_full_step=_median(self._seconds[True]),
            seconds_predicted_step=_median(self._seconds[False]),
            time_speedup=self._time_speedup(),
            errors=tuple({**row, "error": values[0]} for row, values in _read(self._errors, wait)),
            betas=tuple({**row, "beta": values[:MOST_SAMPLES]} for row, values in _read(self._betas, wait)),
            reason=reason,
            warnings=tuple(self._warnings),
            settings=settings,
        )

    def _time_speedup(self) -> float:
        evaluations, forecasts = len(self._seconds[True]), len(self._seconds[False])
        if not evaluations or not forecasts:
            return 0.0
        full, predicted = _median(self._seconds[True]), _median(self._seconds[False])
        return (evaluations + forecasts) * full / (evaluations * full + forecasts * predicted)


def _read(found: Mapping[tuple[float, Hashable], Readback], wait: bool) -> list[tuple[dict[str, Any], list[float]]]:
    """Where each belongs, and its values; streams are numbered in the order in which they came.

    What a network that gave NaN made of them is left out: JSON has no word for it. Where they are more than a report
    may hold, those of every second step are there, or third, …
    """
    numbers: dict[Hashable, int] = {}
    places = [(step, numbers.setdefault(stream, len(numbers)), readback) for (step, stream), readback in found.items()]
    places = [place for place in places if place[1] < MOST_STREAMS]
    steps = list(dict.fromkeys(step for step, _, _ in places))
    kept = set(steps[::max(1, math.ceil(len(places) / MOST_ROWS))])
    rows = [({"step": step, "stream": stream}, readback.values()) for step, stream, readback in places
            if step in kept and (wait or readback.ready)]
    return [(row, values) for row, values in rows if all(map(math.isfinite, values))]


def _median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0
