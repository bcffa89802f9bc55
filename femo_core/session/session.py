"""One sampling run, for the host that calls it: what may be forecast, what is recorded, what was done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..cache import FeatureCache
from ..errors import StateError
from ..plans.readback import Readback
from ..predictor import AbstractPredictor
from ..report import RunReport
from ..schedule import AbstractSchedule
from .breaks import Breaks
from .features import Features
from .measurements import Measurements
from .streams import Streams

AFRESH = ("a forecast was far worse than the last feature itself would have been: something was switched within the "
          "network, or the order is too high for the interval. Forecasting starts afresh there")


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
    a warm-up of its own. So does one whose forecast for a full step was far worse than reuse (`breaks.py`): something
    was switched within the network.

    share: where this process holds but a part of every feature, makes the norms of the whole from those of the part
    (`parallel.whole_norms`). Called once in `record`, for all sites, and only where the predictor goes by norms; and
    with a tolerance once more for the error at the last site, so that all processes choose the same steps.

    tolerance: above 0 the forecast error measured at each full step widens or narrows the gap to the next, so as to
    keep it at the tolerance (`plans/error_control.py`). `interval` and `max_consecutive` are then the widest gap. The
    error, one number for each stream, is then waited for once per full step; else nothing is before `report`.

    expected_errors: by full step, what the forecast errors measured there are expected to be. Where they are far more,
    further steps are full (`plans/guard.py`), and the report says so; nothing is waited for.

    Raises ValueError for a tolerance outside 0 … 1, or above 0 with a schedule that is not one of intervals.
    """

    def __init__(self, schedule: AbstractSchedule, predictor: AbstractPredictor, total_steps: int,
                 storage: torch.device | None = None, share: Callable[[Tensor], Tensor] | None = None,
                 tolerance: float = 0.0, expected_errors: Mapping[int, float] | None = None):
        self.schedule = schedule
        self.predictor = predictor
        self.total_steps = total_steps
        self.tolerance = tolerance
        self._streams = Streams(schedule, predictor, total_steps, tolerance, expected_errors or {})
        self._features = Features(predictor, storage, share)
        self._measurements = Measurements()
        self._breaks = Breaks()
        self._changed: set[Hashable] = set()  # streams whose features no longer fit, found out while they are recorded
        self._measured_site: Hashable = None  # where forecast errors are measured: the last one

    @property
    def cache(self) -> FeatureCache:
        return self._features.cache

    @property
    def step(self) -> float:
        """As `begin_step` was told it."""
        return self._streams.step

    @property
    def index(self) -> int:
        """The whole step that the schedule goes by."""
        return self._streams.index

    @property
    def forecasts(self) -> bool:
        """Whether any step may be predicted at all."""
        return self._streams.any_forecast

    def begin_step(self, step: float, coordinate: float | None = None) -> None:
        """The model is about to be evaluated at `step`.

        coordinate: where that is for the predictor, if it is not to go by steps.
        """
        self._measurements.end_evaluation()
        for stream in self._streams.begin_step(step, coordinate):
            self.forget(stream)

    def sampler_is_at(self, index: int) -> None:
        """The evaluation under way is this step's, whatever it was taken for: for the report."""
        if 0 <= index < self.total_steps:
            self._measurements.attribute(index)

    def begin_call(self, streams: Sequence[Hashable], sites: Iterable[Hashable]) -> bool:
        """The network is about to be called for `streams`. True if their features at `sites` are to be forecast.

        It is so where the schedule has a predicted step and every stream is past its warm-up and was recorded, at
        every site, at the full step before.
        """
        sites = tuple(sites)
        self._measured_site = sites[-1] if sites else None
        for stream in streams:
            if self._streams.missed_a_full_step(stream):
                self.forget(stream)
            elif self._breaks.found(stream) and self._streams.any_to_come:
                self.warn(AFRESH)
                self.forget(stream)
            self._streams.appears(stream)
        if not self._streams.may_be_forecast(streams):
            return False
        return all((stream, site) in self.cache for site in sites for stream in streams)

    def wants_features(self, stream: Hashable) -> bool:
        """Whether a full step's features of the stream are to be recorded: a later step may be forecast from them.

        Those of the first full step after the last forecast are wanted too, to measure what it would have been.
        """
        return self._streams.wants_features(stream)

    def forecast(self, streams: Sequence[Hashable], site: Hashable) -> Tensor:
        """The features forecast for the present step, of all streams one after the other: a fresh tensor (ΣB, ...)."""
        return self.cache.forecast(streams, site, self._streams.coordinate)

    def forecast_added(self, streams: Sequence[Hashable], site: Hashable, to: Tensor, gate: Tensor) -> Tensor:
        """to + gate · forecast in one pass, a fresh tensor: to (ΣB, T, D), gate (ΣB or 1, 1, D)."""
        return self.cache.forecast_added(streams, site, self._streams.coordinate, to, gate)

    def record(self, stream: Hashable, features: Mapping[Hashable, Tensor]) -> None:
        """Takes the features, (B, ...) by site, of a full step. They are copied, and may be the host's own.

        Features that the session does not want are left alone. If their shape, dtype or device has changed, what was
        recorded no longer fits: the stream starts afresh, with a warning.
        """
        if not self.wants_features(stream):
            return
        norms: dict[Hashable, Tensor] = {}
        if self._streams.any_to_come:
            try:
                norms = self._features.shared_norms(stream, features, self._streams.coordinate)
            except StateError:  # of which recording says more
                norms = {}
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
            if self._streams.any_to_come:
                self._features.take(stream, site, feature, self._streams.coordinate, norms)
        except StateError as error:
            self.warn(f"features changed in mid-run, forecasting starts afresh: {error}")
            self._changed.add(stream)

    def end_recording(self, stream: Hashable) -> None:
        """All features of the stream's full step have been taken."""
        beta = self._features.end(stream)
        if stream in self._changed:
            self._changed.remove(stream)
            self.forget(stream)
            self._streams.appears(stream)
            return
        if beta is not None and self._streams.any_to_come:
            self._measurements.beta(self._streams.step, stream, beta)
        self._streams.recorded(stream)

    def _measure(self, stream: Hashable, site: Hashable, feature: Tensor) -> None:
        """The error of what would have been forecast for this full step."""
        if (stream, site) not in self.cache or self._streams.is_anchored_here(stream):
            return
        plan = self._streams.plan
        errors = self._features.relative_errors(stream, site, feature, self._streams.coordinate, plan.goes_by_errors)
        readback = self._measurements.error(self._streams.step, stream, errors[0])
        self._breaks.measured(stream, Readback(errors))
        if (gap := self._streams.gap(stream)) is not None:
            plan.measured(self._streams.index, gap, readback)

    def forget(self, stream: Hashable) -> None:
        """Drops what was recorded for a stream: it starts afresh, with a warm-up of its own."""
        self.cache.forget(stream)
        self._streams.forget(stream)

    def forget_features(self) -> None:
        """Drops all that was recorded; streams keep their age."""
        self.cache.clear()
        self._streams.forget_anchors()

    def count_run(self, saved: bool) -> None:
        """A call of the network was forecast instead (`saved`), or made."""
        self._measurements.count_run(self._streams.counted_index, saved)

    def warn(self, message: str) -> None:
        """Keeps a warning for the report, once."""
        self._measurements.warn(message)

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
        self._measurements.end_evaluation()
        if self._features.any_nonfinite:
            self.warn("the network gave NaN or infinity in a full step; forecasts made from it are not to be trusted")
        return self._report(seconds, reason or self._why_nothing_was_saved(), settings, wait=True)

    def _report(self, seconds: float, reason: str, settings: Mapping[str, Any] | None, wait: bool) -> RunReport:
        for notice in self._streams.plan.notices:
            self.warn(notice)
        own = {"predictor": type(self.predictor).__name__, **asdict(self.predictor), **self.schedule.settings,
               "tolerance": self.tolerance}
        return self._measurements.report(
            self.total_steps, seconds, self._features.peak_bytes, reason, {**own, **(settings or {})}, wait)

    def _why_nothing_was_saved(self) -> str:
        if self._measurements.saved:
            return ""
        if not self.forecasts:
            return self.schedule.why_all_full(self.total_steps)
        if not len(self.cache):
            return "no feature could be recorded"
        return self._streams.plan.why_none_predicted
