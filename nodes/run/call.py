"""One call of the network: its features are forecast, recorded, or left alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..families import find_family
from ..sites import Embedders, Forecasts, watching_blocks
from ..sites.trial import Trial, needs_trial
from .compiler import paused
from .control import DeferredControl, controls_of
from .obstacles import blocks_are_skipped
from .run import Run

_NOT_ITSELF = ("another node, or a newer ComfyUI, has changed this model, and its features there do not make the step "
               "that they were taken from")


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
        self.trial = self._trial((self.site_name, type(model), len(self.streams), tuple(x.shape[1:])))
        self.failed = False

    def _trial(self, kind: Hashable) -> Trial | None:
        """Of a kind of call that has not been tried yet, where that has to be done."""
        run = self.run
        own = run.kind if self.model is run.network else type(self.model)
        if not self.recording.wanted or self.site_name == "output" or kind in run.tried or not needs_trial(
                self.model, own, self.family.derived):
            return None
        run.tried.add(kind)
        return Trial()

    def predicted(self, options: dict[str, Any], control: Any, go_on: Callable[..., Any]) -> Any:
        blocks_are_skipped(self.run.guider.model_options)
        passed_by = self.needless if self.embedders.blocks_rest else ()
        result = self._from(_Forecasts(self.run, self.streams), passed_by, options, control, go_on)
        self.embedders.blocks_rest = not self.ran
        return result

    def _from(self, features: Forecasts, passed_by: Sequence[str], options: dict[str, Any], control: Any,
              go_on: Callable[..., Any]) -> Any:
        with (watching_blocks(self.model, self.family, self.ran), self.embedders.passed_by(self.model, passed_by),
              self.site.substituting(self.model, self.family, options, features) as substituted):
            return go_on(substituted, control)

    def full(self, options: dict[str, Any], control: Any, go_on: Callable[..., Any]) -> Any:
        with ExitStack() as stack:
            stack.enter_context(self.run.streams.noting(options))
            if self.recording.wanted:
                stack.enter_context(self.site.recording(self.model, self.family, self.recording.keep))
                stack.enter_context(self.embedders.noted(self.model, self.needless))
            if self.usable and not self.run.choice.measured:
                stack.enter_context(self.run.choice.measuring(self.model, self.family, self.streams))
            if self.trial:
                stack.enter_context(self.site.recording(self.model, self.family, self.trial.keep))
            result = go_on(options, control)
        if self.trial and self.recording.complete(self.names):
            same = self.trial.passes(result, lambda: self._from(
                self.trial, self.needless, options, control, go_on))
            self.failed = not same or bool(self.ran)
        return result

    def end(self) -> None:
        """The forward is done. (That of an interrupted run never is.)"""
        with self.run.lock:
            if self.recording.wanted:
                self.recording.end(self.site_name, self.names)
            if self.failed:
                self.run.give_way(self.site_name, _NOT_ITSELF)
            if self.ran and self.forecast:
                self.run.warn(
                    "blocks ran on a forecast step: another node keeps them from being skipped, nothing is saved")
            saved = self.forecast and not self.ran
            self.run.has_saved |= saved
            self.run.session.count_run(saved)


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

    def complete(self, names: tuple[str, ...]) -> bool:
        return self.seen == set(names)

    def end(self, site: str, names: tuple[str, ...]) -> None:
        for stream in self.wanted:
            self.run.session.end_recording(stream)
        if not self.complete(names):
            self.run.give_way(site)
