"""One sampling run: which step it is, what may be forecast, what was done."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .cache import FeatureCache
from .errors import StateError
from .predictor import AbstractPredictor
from .report import RunReport
from .schedule import Schedule


class ForecastSession:
    """The state of one run. Make one for each run, and `close` it (or drop it) afterwards.

    A host calls `begin_step` before each evaluation of the model, and for each call of the network asks `begin_call`:
    either it puts `forecast`s in the network's place, or it runs the network and, for streams that `wants_features`,
    gives them to `record`. It says which it did with `count_run`.

    Steps are integers or fractions (samplers that evaluate the model between two steps). The schedule goes by the
    whole step below. Between two whole steps a stream's features are recorded at the first fraction only: two anchors
    a fraction of a step apart would make a derivative of little but noise. The same step once more replaces the
    anchor. One step back (some samplers look ahead) is forecast, but not recorded; going back by more starts all
    streams afresh.

    A stream that first appears in mid-run (a prompt with a start time), or comes back after missing a full step, gets
    a warm-up of its own.
    """

    def __init__(self, schedule: Schedule, predictor: AbstractPredictor, total_steps: int,
                 storage: torch.device | None = None):
        self.schedule = schedule
        self.predictor = predictor
        self.total_steps = total_steps
        self.cache = FeatureCache(predictor, storage)
        full = set(schedule.full_steps(total_steps))
        self._last_predicted = max((step for step in range(total_steps) if step not in full), default=-1)
        self._step = 0.0
        self._coordinate = 0.0
        self._first_step: dict[Hashable, int] = {}
        self._anchor: dict[Hashable, float] = {}
        self._seen: set[int] = set()
        self._ran: set[int] = set()
        self._runs = 0
        self._saved = 0
        self._peak_bytes = 0
        self._nonfinite: dict[torch.device, Tensor] = {}
        self._betas: dict[tuple[float, Hashable], Tensor] = {}
        self._warnings: dict[str, None] = {}  # ordered, each once

    @property
    def index(self) -> int:
        """The whole step that the schedule goes by."""
        return math.floor(self._step)

    @property
    def forecasts(self) -> bool:
        """Whether the schedule has predicted steps at all."""
        return self._last_predicted >= 0

    def begin_step(self, step: float, coordinate: float | None = None) -> None:
        """The model is about to be evaluated at `step`.

        coordinate: where that is for the predictor, if it is not to go by steps.
        """
        if math.floor(step) < self.index - 1:
            for stream in list(self._first_step):
                self._forget(stream)
        self._step = float(step)
        self._coordinate = self._step if coordinate is None else float(coordinate)
        self._seen.add(self._counted_index())

    def begin_call(self, streams: Sequence[Hashable], sites: Iterable[Hashable]) -> bool:
        """The network is about to be called for `streams`. True if their features at `sites` are to be forecast.

        It is so where the schedule has a predicted step and every stream is past its warm-up and was recorded, at
        every site, at the full step before.
        """
        for stream in streams:
            if self.index - math.floor(self._anchor.get(stream, self._step)) >= self.schedule.interval + 1:
                self._forget(stream)
            self._first_step.setdefault(stream, self.index)
        if self.schedule.is_full(self.index, self.total_steps):
            return False
        if any(self._age(stream) < self.schedule.warmup_steps for stream in streams):
            return False
        return all((stream, site) in self.cache for site in sites for stream in streams)

    def wants_features(self, stream: Hashable) -> bool:
        """Whether a full step's features of the stream are to be recorded: a later step may be forecast from them."""
        if self.index >= self._last_predicted or self._age(stream) < self.schedule.first_recorded_step:
            return False
        anchor = self._anchor.get(stream)
        return anchor is None or anchor == self._step or math.floor(anchor) < self.index

    def forecast(self, stream: Hashable, site: Hashable) -> Tensor:
        """The feature (B, ...) forecast for the present step, a fresh tensor."""
        return self.cache.forecast(stream, site, self._coordinate)

    def record(self, stream: Hashable, features: Mapping[Hashable, Tensor]) -> None:
        """Takes the features, (B, ...) by site, of a full step. They are copied, and may be the host's own.

        Features that the session does not want are left alone. If their shape, dtype or device has changed, what was
        recorded no longer fits: the stream starts afresh, with a warning.
        """
        if not self.wants_features(stream):
            return
        try:
            betas = [self._record_site(stream, site, feature) for site, feature in features.items()]
        except StateError as error:
            self.warn(f"features changed in mid-run, forecasting starts afresh: {error}")
            self._forget(stream)
            self._first_step[stream] = self.index
            return
        self._anchor[stream] = self._step
        adapted = [beta for beta in betas if beta is not None]
        if adapted:
            self._betas[self._step, stream] = torch.stack(adapted).mean(0)
        self._peak_bytes = max(self._peak_bytes, self.cache.nbytes)

    def _record_site(self, stream: Hashable, site: Hashable, feature: Tensor) -> Tensor | None:
        state = self.cache.record(stream, site, feature, self._coordinate)
        flag = kernels.is_nonfinite(feature)
        known = self._nonfinite.get(feature.device)
        self._nonfinite[feature.device] = flag if known is None else known | flag
        return state.beta if isinstance(state.beta, Tensor) else None

    def _age(self, stream: Hashable) -> int:
        return self.index - self._first_step.get(stream, self.index)

    def _forget(self, stream: Hashable) -> None:
        self.cache.forget(stream)
        self._anchor.pop(stream, None)
        self._first_step.pop(stream, None)

    def _counted_index(self) -> int:
        return min(self.index, max(0, self.total_steps - 1))

    def count_run(self, saved: bool) -> None:
        """A call of the network was forecast instead (`saved`), or made."""
        if saved:
            self._saved += 1
        else:
            self._runs += 1
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

    def report(self, seconds: float, reason: str = "", settings: Mapping[str, Any] | None = None) -> RunReport:
        """What the run did. The only place where values are read back from the device. Call it before `close`.

        reason: why the host skipped nothing, where it knows better than the session.
        """
        if any(bool(flag) for flag in self._nonfinite.values()):
            self.warn("the network gave NaN or infinity in a full step; forecasts made from it are not to be trusted")
        full = tuple(sorted(self._ran))
        predicted = tuple(sorted(self._seen - self._ran))
        return RunReport(
            total_steps=self.total_steps,
            full_steps=full,
            predicted_steps=predicted,
            network_runs=self._runs,
            network_runs_saved=self._saved,
            seconds=seconds,
            cache_bytes=self._peak_bytes,
            betas=self._read_betas(),
            reason=reason or ("" if self._saved else self._why_nothing_was_saved()),
            warnings=tuple(self._warnings),
            settings={
                "predictor": type(self.predictor).__name__, **asdict(self.predictor), **asdict(self.schedule),
                **(settings or {}),
            },
        )

    def _read_betas(self) -> tuple[dict[str, Any], ...]:
        numbers: dict[Hashable, int] = {}
        return tuple(
            {"step": step, "stream": numbers.setdefault(stream, len(numbers)), "beta": [float(b) for b in beta.cpu()]}
            for (step, stream), beta in self._betas.items()
        )

    def _why_nothing_was_saved(self) -> str:
        if self.schedule.interval == 1:
            return "interval is 1"
        if len(self.schedule.full_steps(self.total_steps)) == self.total_steps:
            return (
                f"all {self.total_steps} steps fall into the warm-up ({self.schedule.warmup_steps}), the interval "
                f"({self.schedule.interval}) or the cool-down ({self.schedule.cooldown_steps})"
            )
        if not len(self.cache):
            return "no feature could be recorded"
        return "no stream of features lasted from one full step to the next"
