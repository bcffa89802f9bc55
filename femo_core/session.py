"""One sampling run: which step it is, what may be forecast, what was done."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .cache import FeatureCache
from .error_control import make_plan
from .errors import StateError
from .predictor import AbstractPredictor
from .readback import Readback
from .report import RunReport
from .schedule import AbstractSchedule


class ForecastSession:
    """The state of one run. Make one for each run, and `close` it (or drop it) afterwards.

    A host calls `begin_step` before each evaluation of the model, and for each call of the network asks `begin_call`:
    either it puts `forecast`s in the network's place, or it runs the network and, for streams that `wants_features`,
    gives them to `record`. It says which it did with `count_run`. Features that are large all together it gives to
    `record_site` each as it comes, and says `end_recording` at the end.

    Steps are integers or fractions (samplers that evaluate the model between two steps). The schedule goes by the
    whole step below. Between two whole steps a stream's features are recorded at the first fraction only: two anchors
    a fraction of a step apart would make a derivative of little but noise. The same step once more replaces the
    anchor. One step back (some samplers look ahead) is forecast, but not recorded; going back by more starts all
    streams afresh.

    A stream that first appears in mid-run (a prompt with a start time), or comes back after missing a full step, gets
    a warm-up of its own.

    share: where this process holds but a part of every feature, makes the norms of the whole from those of the part
    (`parallel.whole_norms`). Called once in `record`, for all sites, and only where the predictor goes by norms; and
    with a tolerance once more for the error at the last site, so that all processes choose the same steps.

    tolerance: above 0 the forecast error measured at each full step widens or narrows the gap to the next, so as to
    keep it at the tolerance (`error_control.py`). `interval` and `max_consecutive` are then the widest gap. The error,
    one number for each stream, is then waited for once per full step; else nothing is before `report`.

    Raises ValueError for a tolerance outside 0 … 1, or above 0 with a schedule that is not one of intervals.
    """

    def __init__(self, schedule: AbstractSchedule, predictor: AbstractPredictor, total_steps: int,
                 storage: torch.device | None = None, share: Callable[[Tensor], Tensor] | None = None,
                 tolerance: float = 0.0):
        self.schedule = schedule
        self.predictor = predictor
        self.total_steps = total_steps
        self.cache = FeatureCache(predictor, storage)
        self.tolerance = tolerance
        self._share = share
        self._plan = make_plan(schedule, tolerance, predictor.max_order, total_steps)
        self._last_predicted = max(filter(self._plan.may_be_predicted, range(total_steps)), default=-1)
        self._step = 0.0
        self._coordinate = 0.0
        self._first_step: dict[Hashable, int] = {}
        self._anchor: dict[Hashable, float] = {}
        self._finished: set[Hashable] = set()  # streams of which nothing more is forecast
        self._changed: set[Hashable] = set()  # streams whose features no longer fit, found out while they are recorded
        self._measured_site: Hashable = None  # where forecast errors are measured: the last one
        self._seen: set[int] = set()
        self._ran: set[int] = set()
        self._runs = 0
        self._saved = 0
        self._peak_bytes = 0
        self._nonfinite: dict[torch.device, Tensor] = {}
        self._adapted: dict[Hashable, list[Tensor]] = {}  # β of the sites recorded so far in this call
        self._betas: dict[tuple[float, Hashable], Readback] = {}
        self._errors: dict[tuple[float, Hashable], Readback] = {}
        self._began = math.nan  # the evaluation, by the clock
        self._network_ran = False  # in it
        self._seconds: dict[bool, list[float]] = {True: [], False: []}  # of evaluations, by whether it did
        self._warnings: dict[str, None] = {}  # ordered, each once

    @property
    def index(self) -> int:
        """The whole step that the schedule goes by."""
        return math.floor(self._step)

    @property
    def forecasts(self) -> bool:
        """Whether any step may be predicted at all."""
        return self._last_predicted >= 0

    def begin_step(self, step: float, coordinate: float | None = None) -> None:
        """The model is about to be evaluated at `step`.

        coordinate: where that is for the predictor, if it is not to go by steps.
        """
        self._stop_clock()
        if math.floor(step) < self.index - 1:
            for stream in list(self._first_step):
                self.forget(stream)
            self._plan.restart(math.floor(step))
        self._step = float(step)
        self._coordinate = self._step if coordinate is None else float(coordinate)
        self._seen.add(self._counted_index())

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        if not math.isnan(self._began):
            self._seconds[self._network_ran].append(now - self._began)
        self._began, self._network_ran = now, False

    def begin_call(self, streams: Sequence[Hashable], sites: Iterable[Hashable]) -> bool:
        """The network is about to be called for `streams`. True if their features at `sites` are to be forecast.

        It is so where the schedule has a predicted step and every stream is past its warm-up and was recorded, at
        every site, at the full step before.
        """
        sites = tuple(sites)
        self._measured_site = sites[-1] if sites else None
        for stream in streams:
            if self._missed_a_full_step(stream):
                self.forget(stream)
            self._first_step.setdefault(stream, self.index)
        if self._plan.is_full(self.index):
            return False
        if any(self._age(stream) < self.schedule.leading_steps for stream in streams):
            return False
        return all((stream, site) in self.cache for site in sites for stream in streams)

    def _missed_a_full_step(self, stream: Hashable) -> bool:
        anchor = math.floor(self._anchor.get(stream, self._step))
        return stream not in self._finished and self._plan.outdated(anchor, self.index)

    def wants_features(self, stream: Hashable) -> bool:
        """Whether a full step's features of the stream are to be recorded: a later step may be forecast from them.

        Those of the first full step after the last forecast are wanted too, to measure what it would have been.
        """
        if self.index >= self._last_predicted:
            return stream in self._anchor and stream not in self._finished
        if self._age(stream) < self.schedule.first_recorded_step:
            return False
        anchor = self._anchor.get(stream)
        return anchor is None or anchor == self._step or math.floor(anchor) < self.index

    def forecast(self, streams: Sequence[Hashable], site: Hashable) -> Tensor:
        """The features forecast for the present step, of all streams one after the other: a fresh tensor (ΣB, ...)."""
        return self.cache.forecast(streams, site, self._coordinate)

    def forecast_added(self, streams: Sequence[Hashable], site: Hashable, to: Tensor, gate: Tensor) -> Tensor:
        """to + gate · forecast in one pass, a fresh tensor: to (ΣB, T, D), gate (ΣB or 1, 1, D)."""
        return self.cache.forecast_added(streams, site, self._coordinate, to, gate)

    def record(self, stream: Hashable, features: Mapping[Hashable, Tensor]) -> None:
        """Takes the features, (B, ...) by site, of a full step. They are copied, and may be the host's own.

        Features that the session does not want are left alone. If their shape, dtype or device has changed, what was
        recorded no longer fits: the stream starts afresh, with a warning.
        """
        if not self.wants_features(stream):
            return
        try:
            norms = self._shared_norms(stream, features)
        except StateError:  # of which recording says more
            norms = dict[Hashable, Tensor]()
        for site, feature in features.items():
            self.record_site(stream, site, feature, norms.get(site))
        self.end_recording(stream)

    def record_site(self, stream: Hashable, site: Hashable, feature: Tensor, norms: Tensor | None = None) -> None:
        """Takes one of the features of a stream that wants them. `end_recording` must follow the last of them.

        norms: the predictor's `compared_norms`, (n, B), of the whole feature, where this is but a part of it.
        """
        if stream in self._changed:
            return
        try:
            if site == self._measured_site:
                self._measure(stream, site, feature)
            if self.index < self._last_predicted:
                self._take(stream, site, feature, norms)
        except StateError as error:
            self.warn(f"features changed in mid-run, forecasting starts afresh: {error}")
            self._changed.add(stream)

    def end_recording(self, stream: Hashable) -> None:
        """All features of the stream's full step have been taken."""
        betas = self._adapted.pop(stream, [])
        if stream in self._changed:
            self._changed.remove(stream)
            self.forget(stream)
            self._first_step[stream] = self.index
        elif self.index >= self._last_predicted:
            self._finished.add(stream)
        else:
            self._anchor[stream] = self._step
            if betas:
                self._betas[self._step, stream] = Readback(torch.stack(betas).mean(0))
            self._peak_bytes = max(self._peak_bytes, self.cache.nbytes)

    def _measure(self, stream: Hashable, site: Hashable, feature: Tensor) -> None:
        """The error of what would have been forecast for this full step."""
        anchor = self._anchor.get(stream)
        if (stream, site) not in self.cache or anchor == self._step:
            return
        norms = self.cache.compare(stream, site, feature, self._coordinate)
        if self._plan.goes_by_errors and self._share is not None:
            norms = self._share(norms)
        of_feature, _, of_error = norms
        error = self._errors[self._step, stream] = Readback((of_error / of_feature).mean())
        if anchor is not None and self._plan.is_full(self.index):
            self._plan.measured(self.index - math.floor(anchor), error)

    def _shared_norms(self, stream: Hashable, features: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """By site, what the predictor compares, of the whole features: one message for all of them."""
        if self._share is None or self.index >= self._last_predicted:
            return {}
        own = {site: self.cache.compared_norms(stream, site, feature, self._coordinate)
               for site, feature in features.items()}
        known = {site: norms for site, norms in own.items() if norms is not None}
        if not known:
            return {}
        return dict(zip(known, self._share(torch.stack([*known.values()])).unbind(), strict=True))

    def _take(self, stream: Hashable, site: Hashable, feature: Tensor, norms: Tensor | None) -> None:
        state = self.cache.record(stream, site, feature, self._coordinate, norms)
        flag = kernels.is_nonfinite(feature)
        known = self._nonfinite.get(feature.device)
        self._nonfinite[feature.device] = flag if known is None else known | flag
        if isinstance(state.beta, Tensor):
            self._adapted.setdefault(stream, []).append(state.beta)

    def _age(self, stream: Hashable) -> int:
        return self.index - self._first_step.get(stream, self.index)

    def forget(self, stream: Hashable) -> None:
        """Drops what was recorded for a stream: it starts afresh, with a warm-up of its own."""
        self.cache.forget(stream)
        self._anchor.pop(stream, None)
        self._finished.discard(stream)
        self._first_step.pop(stream, None)

    def _counted_index(self) -> int:
        return min(self.index, max(0, self.total_steps - 1))

    def count_run(self, saved: bool) -> None:
        """A call of the network was forecast instead (`saved`), or made."""
        if saved:
            self._saved += 1
        else:
            self._runs += 1
            self._network_ran = True
            self._ran.add(self._counted_index())

    def warn(self, message: str) -> None:
        """Keeps a warning for the report, once."""
        self._warnings[message] = None

    def forget_features(self) -> None:
        """Drops all that was recorded; streams keep their age."""
        self.cache.clear()
        self._anchor.clear()

    def close(self) -> None:
        """Frees every buffer."""
        self.cache.clear()

    def progress(self, seconds: float, settings: Mapping[str, Any] | None = None) -> RunReport:
        """What the run did so far, with those values only that have come from the device by themselves."""
        return self._report(seconds, "", settings, wait=False)

    def report(self, seconds: float, reason: str = "", settings: Mapping[str, Any] | None = None) -> RunReport:
        """What the run did. The only place that waits for values from the device. Call it before `close`.

        reason: why the host skipped nothing, where it knows better than the session.
        """
        self._stop_clock()
        if any(bool(flag) for flag in self._nonfinite.values()):
            self.warn("the network gave NaN or infinity in a full step; forecasts made from it are not to be trusted")
        return self._report(
            seconds, reason or ("" if self._saved else self._why_nothing_was_saved()), settings, wait=True)

    def _report(self, seconds: float, reason: str, settings: Mapping[str, Any] | None, wait: bool) -> RunReport:
        full = tuple(sorted(self._ran))
        seconds_full, seconds_predicted = _median(self._seconds[True]), _median(self._seconds[False])
        evaluations, forecasts = len(self._seconds[True]), len(self._seconds[False])
        made = evaluations * seconds_full + forecasts * seconds_predicted
        predicted = tuple(sorted(self._seen - self._ran))
        return RunReport(
            total_steps=self.total_steps,
            full_steps=full,
            predicted_steps=predicted,
            network_runs=self._runs,
            network_runs_saved=self._saved,
            seconds=seconds,
            cache_bytes=self._peak_bytes,
            seconds_full_step=seconds_full,
            seconds_predicted_step=seconds_predicted,
            time_speedup=(evaluations + forecasts) * seconds_full / made if evaluations and forecasts else 0.0,
            errors=tuple({**row, "error": values[0]} for row, values in _read(self._errors, wait)),
            betas=tuple({**row, "beta": values} for row, values in _read(self._betas, wait)),
            reason=reason,
            warnings=tuple(self._warnings),
            settings={
                "predictor": type(self.predictor).__name__, **asdict(self.predictor), **asdict(self.schedule),
                "tolerance": self.tolerance, **(settings or {}),
            },
        )

    def _why_nothing_was_saved(self) -> str:
        if not self.forecasts:
            return self.schedule.why_all_full(self.total_steps)
        if not len(self.cache):
            return "no feature could be recorded"
        return self._plan.why_none_predicted


def _read(found: Mapping[tuple[float, Hashable], Readback], wait: bool) -> list[tuple[dict[str, Any], list[float]]]:
    """Where each belongs, and its values; streams are numbered in the order in which they came.

    What a network that gave NaN made of them is left out: JSON has no word for it.
    """
    numbers: dict[Hashable, int] = {}
    rows = [
        ({"step": step, "stream": numbers.setdefault(stream, len(numbers))}, readback.values())
        for (step, stream), readback in found.items() if wait or readback.ready]
    return [(row, values) for row, values in rows if all(map(math.isfinite, values))]


def _median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0
