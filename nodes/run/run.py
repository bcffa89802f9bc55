"""One sampling run: what it knows from its beginning to its report."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...femo_core import ForecastSession, RunReport
from ...femo_core.plans.full_steps import FullSteps
from ..cache_config import RunConfig
from ..families import find_family
from ..reach import Handle
from ..sites import Embedders
from .history import History
from .memory import Room
from .obstacles import obstacle_of, watch_wrapper
from .reporting import Channel, log
from .site_choice import DID_NOT_RUN, SiteChoice
from .steps import StepClock, coordinates_of, interpolated
from .streams import StreamKeys

KEY = "femo"  # in transformer_options
PAST_THE_HOST = (
    "this guider or sampler calls the network past ComfyUI, which then does not say which prompt a row is of; use one "
    "of ComfyUI's own")


class Run:
    """One sampling run. An instance, because ComfyUI merges dicts of transformer_options anew on every call."""

    def __init__(self, config: RunConfig, full_steps: FullSteps, sigmas: Tensor, guider: Any,
                 shapes: Sequence[Sequence[int]], channel: Channel):
        self.config, self.full_steps, self.guider, self.channel = config, full_steps, guider, channel
        self.clock, self.started = StepClock(sigmas.tolist()), time.perf_counter()
        self.shapes = shapes  # of the latents that are sampled together
        storage = torch.device("cpu") if config.cache_device == "cpu" else None
        self.room = Room(guider, storage or guider.model_patcher.load_device, full_steps.predictor.buffer_count)
        expected = full_steps.expected_errors if full_steps.guarded else {}
        self.session = ForecastSession(full_steps.schedule, full_steps.predictor, self.clock.total_steps, storage,
                                       tolerance=full_steps.tolerance, expected_errors=expected)
        self.network = guider.model_patcher.model.diffusion_model
        self.kind = type(self.network)  # as yet: other packs' patches may give it another class
        self.family = find_family(self.network)
        self.coordinates = self._coordinates(sigmas)
        self.streams = StreamKeys(self.warn)
        self.embedders: dict[tuple[Hashable, ...], Embedders] = {}  # by the streams of a call
        self.input_shape: tuple[int, ...] = ()
        self._is_told = False  # of evaluations, by PREDICT_NOISE
        self._evaluated: tuple[Any, Any] = (None, None)  # else
        self.has_saved = False  # any call of the network
        self.unplaced = 0  # calls of the network of which nobody says what their rows are
        self.lock = threading.Lock()  # a host that splits its work over several GPUs calls from several threads
        self.tried: set[Hashable] = set()  # kinds of calls, of networks that a site has to be tried on
        self._logged: set[str] = set()
        self.obstacle = obstacle_of(guider.model_options, self.network)
        self.choice = SiteChoice(
            config.site, self.network, self.family, guider.model_options, self.room, self.warn)
        self.history = History(guider.model_patcher)
        self._say_what_is_not_as_asked()

    def _coordinates(self, sigmas: Tensor) -> list[float] | None:
        """Of the steps, where forecasts do not go by their number."""
        if self.config.coordinate != "sigmas":
            return None
        model_sampling = self.guider.model_patcher.get_model_object("model_sampling")
        return coordinates_of(model_sampling.timestep(sigmas[:-1]).tolist())

    def _say_what_is_not_as_asked(self) -> None:
        if self.obstacle:
            self.warn(f"this run is not accelerated: {self.obstacle}")
        elif self.choice.why:
            self.warn(
                f"features are taken at site {self.choice.name} instead of {self.config.site}: {self.choice.why}")
        for notice in filter(None, (*self.full_steps.notices, self.history.notice if self.forecasts else "")):
            self.warn(notice)

    def watch(self, model_options: dict[str, Any]) -> None:
        """Those of this run alone."""
        watch_wrapper(model_options, self.network, self.family, self.step_aside)

    def step_aside(self, obstacle: str) -> None:
        """What remains of the run is not accelerated."""
        if not self.obstacle:
            self.obstacle = obstacle
            from_here = " from here on" if self.has_saved else ""
            self.warn(f"this run is not accelerated{from_here}: {obstacle}")

    @property
    def forecasts(self) -> bool:
        """Whether any of its steps may be forecast."""
        return not self.obstacle and self.session.forecasts

    @property
    def changes_the_network(self) -> bool:
        """Whether predicted steps run a part of it."""
        return self.forecasts and self.choice.name != "output"

    def reserving(self, conds: dict[str, Any], noise_shape: Sequence[int]) -> AbstractContextManager[None]:
        """While open, the host loads the model so as to leave room for the cache: that of the first site that can fit.

        noise_shape: as the host reckons with it, of all latents that are sampled together in one.
        """
        if not self.forecasts:
            return nullcontext()
        size = self.choice.expect(self.guider, conds, self.shapes, noise_shape)
        log.info("%s: about %.1f MB reserved for the cache at site %s", self.config.node, size / 1e6, self.choice.name)
        return self.room.reserved(size if self.room.shared else 0)

    def sampler_is_at(self, step: int) -> None:
        """By its callback, after the first evaluation of the step."""
        if self.clock.told(step):
            self.session.sampler_is_at(int(step))

    def evaluates(self, timestep: Tensor) -> None:
        """The guider does, the model: as PREDICT_NOISE tells."""
        self._is_told = True
        self.begin_evaluation(timestep)

    def calls(self, x: Tensor, timestep: Tensor) -> None:
        """The guider is about to call the network. Of one that goes past PREDICT_NOISE a new evaluation is told by its
        timestep: the same tensor all through one, whatever guidance calls the network for."""
        if not self._is_told:
            before, at = self._evaluated
            if timestep is not at and (x is not before or not torch.equal(timestep, at)):
                self.begin_evaluation(timestep)
            self._evaluated = x, timestep
        self.streams.begin_call()

    def begin_evaluation(self, timestep: Tensor) -> None:
        self.channel.progress(self.so_far)
        self.streams.begin_evaluation()
        if self.choice.fit(self.input_shape):
            self.session.forget_features()
        step = self.clock.step(float(timestep.max()))
        self.session.begin_step(step, interpolated(self.coordinates, step) if self.coordinates else None)

    def give_way(self, site: str, why: str = DID_NOT_RUN) -> None:
        """This site can't serve: the next one takes its place, for all streams."""
        self.choice.give_way(site, why)
        self.session.forget_features()

    def warn(self, message: str) -> None:
        self.session.warn(message)
        self._log_once(message)

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            self.channel.warn(message)

    def so_far(self) -> RunReport:
        return self._with_expected(self.session.progress(time.perf_counter() - self.started, self._settings()))

    def publish(self) -> RunReport:
        report = self._with_expected(
            self.session.report(
                time.perf_counter() - self.started, self.obstacle or self.full_steps.reason, self._settings()))
        if self.unplaced and self.forecasts and not report.network_runs_saved:
            report = replace(report, reason=PAST_THE_HOST)
        for message in report.warnings:
            self._log_once(message)  # those of the session itself, known only now
        self.channel.done(report)
        return report

    def stopped(self) -> None:
        """The run was interrupted or has failed; nothing of ours may take that exception's place."""
        try:
            self.channel.stopped(self.so_far())
        except Exception:
            log.exception("%s: no report of the run that was stopped", self.config.node)

    def _with_expected(self, report: RunReport) -> RunReport:
        return report.expecting(self.full_steps.expected_errors)

    def _settings(self) -> dict[str, Any]:
        return {"site": self.choice.name, "model": self.family.name, "coordinate": self.config.coordinate,
                **self.full_steps.words}


def run_of(transformer_options: dict[str, Any] | None) -> Run | None:
    """The run that is under way."""
    handle = (transformer_options or {}).get(KEY)
    return handle.held if isinstance(handle, Handle) else None
