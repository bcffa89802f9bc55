"""One call of the network: its features are forecast, recorded, or left alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..families import find_family
from ..sites import Embedders, Forecasts, watching_blocks
from .compiler import paused
from .control import DeferredControl, controls_of
from .run import Run


def apply(run: Run, model: nn.Module, x: Tensor, options: dict[str, Any], control: Any, conditioning: Hashable,
          hooks: Mapping[Hashable, Hashable], go_on: Callable[[dict[str, Any], Any], Any]) -> Any:
    """`go_on(transformer_options, control)` goes on to the network, with its features forecast or recorded.

    conditioning: what of it may come and go between steps and makes a stream another one. hooks: as `hooks_of` gives
    them.
    """
    call = NetworkCall(run, model, x, options, control, conditioning, hooks)
    if isinstance(control, DeferredControl):
        control = control.run() if call.site.needs_control or not call.forecast else None
    result = (call.predicted if call.forecast else call.full)(options, control, go_on)
    call.end()
    return result


class NetworkCall:
    """The streams of a call, and what is to be done with their features."""

    def __init__(self, run: Run, model: nn.Module, x: Tensor, options: dict[str, Any], control: Any,
                 conditioning: Hashable, hooks: Mapping[Hashable, Hashable]):
        self.run, self.model = run, model
        # A guider may run a second model of its own for the opposite prompt.
        self.family = run.family if model is run.network else find_family(model)
        self.site_name, self.site = run.choice.name, run.choice.site
        self.names = self.site.features(model, self.family)
        self.needless = self.site.needless(self.family)
        with run.lock:
            self.streams = run.streams.of(x, options, conditioning, controls_of(control), hooks)
            run.input_shape = tuple(x.shape)
            run.unplaced += not self.streams
            self.usable = bool(self.streams) and bool(self.names) and run.forecasts
            self.forecast = self.usable and run.session.begin_call(self.streams, self.names)
            run.history.comes(self.forecast)
            recordable = self.streams if self.usable and not self.forecast else []
            self.recording = _Recording(run, len(x), self.streams, [
                stream for stream in recordable if run.session.wants_features(stream)])
        self.embedders = run.embedders.setdefault(tuple(self.streams), Embedders())
        self.ran: list[str] = []  # block lists, on a predicted step

    def predicted(self, options: dict[str, Any], control: Any, go_on: Callable[..., Any]) -> Any:
        passed_by = self.needless if self.embedders.blocks_rest else ()
        with (watching_blocks(self.model, self.family, self.ran), self.embedders.passed_by(self.model, passed_by),
              self.site.substituting(
                  self.model, self.family, options, _Forecasts(self.run, self.streams)) as substituted):
            result = go_on(substituted, control)
        self.embedders.blocks_rest = not self.ran
        return result

    def full(self, options: dict[str, Any], control: Any, go_on: Callable[..., Any]) -> Any:
        with ExitStack() as stack:
            if self.recording.wanted:
                stack.enter_context(self.site.recording(self.model, self.family, self.recording.keep))
                stack.enter_context(self.embedders.noted(self.model, self.needless))
            if self.usable and not self.run.choice.measured:
                stack.enter_context(self.run.choice.measuring(self.model, self.family, self.streams))
            return go_on(options, control)

    def end(self) -> None:
        """The forward is done. (That of an interrupted run never is.)"""
        with self.run.lock:
            if self.recording.wanted:
                self.recording.end(self.site_name, self.names)
            if self.ran:
                self.run.warn(
                    "blocks ran on a forecast step: another node keeps them from being skipped, nothing is saved")
            self.run.session.count_run(saved=self.forecast and not self.ran)


class _Forecasts(Forecasts):
    """Of the chunks of one call, one after the other in the batch."""

    def __init__(self, run: Run, streams: list[Hashable]):
        self.run, self.streams = run, streams

    def of(self, name: str) -> Tensor:
        with self.run.lock:
            return self.run.session.forecast(self.streams, name)

    def added(self, name: str, to: Tensor, gate: Tensor) -> Tensor:
        with self.run.lock:
            return self.run.session.forecast_added(self.streams, name, to, gate)


class _Recording:
    """The features of one call, each taken as it comes: all of them together would be as large as a buffer.

    samples: of all its streams.
    """

    def __init__(self, run: Run, samples: int, streams: list[Hashable], wanted: list[Hashable]):
        self.run, self.samples, self.streams, self.wanted = run, samples, streams, wanted
        self.seen: set[str] = set()

    def keep(self, name: str, feature: Tensor) -> None:
        if len(feature) != self.samples:  # no list of them: β and errors would be of something else
            return
        self.seen.add(name)
        with self.run.lock:
            for stream, part in zip(self.streams, feature.chunk(len(self.streams)), strict=True):
                if stream in self.wanted:
                    with paused():
                        self.run.session.record_site(stream, name, part)

    def end(self, site: str, names: tuple[str, ...]) -> None:
        complete = self.seen == set(names)
        for stream in self.wanted:
            self.run.session.end_recording(stream)
        if not complete:
            self.run.give_way(site)
