"""All predictor states of a run, one for each stream and site."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from . import kernels
from .errors import StateError
from .predictor import AbstractPredictor, PredictorState


class FeatureCache:
    """(stream, site) -> predictor state.

    A stream is one trajectory of features that must not be mixed with another (a prompt, its opposite, a window); a
    site is a place in the network. Both are any hashable keys.

    storage: where buffers are kept between the steps, if not on the features' device, where all is computed.
    """

    def __init__(self, predictor: AbstractPredictor, storage: torch.device | None = None):
        self.predictor = predictor
        self.storage = storage
        self._homes: dict[tuple[Hashable, Hashable], torch.device] = {}
        self._states: dict[tuple[Hashable, Hashable], PredictorState] = {}

    def __contains__(self, key: tuple[Hashable, Hashable]) -> bool:
        return key in self._states

    def __len__(self) -> int:
        return len(self._states)

    def compared_norms(self, stream: Hashable, site: Hashable, feature: Tensor, step: float) -> Tensor | None:
        """The predictor's, where recording this feature goes by them."""
        if (stream, site) not in self or self._stored(stream, site).step == step:
            return None
        return self.predictor.compared_norms(self._state(stream, site), feature, step)

    def record(self, stream: Hashable, site: Hashable, feature: Tensor, step: float,
               norms: Tensor | None = None) -> PredictorState:
        """Updates a site's state with the feature, (B, ...), of a full step. norms: its `compared_norms`, if known.

        Raises StateError for another shape, dtype or device than before.
        """
        self._homes[stream, site] = feature.device
        state = self._state(stream, site) if (stream, site) in self else self.predictor.init()
        state = self.predictor.update(state, feature, step, norms, reuse=True)
        self._states[stream, site] = state if self.storage is None else state.to(self.storage)
        return state

    def forecast(self, streams: Sequence[Hashable], site: Hashable, step: float) -> Tensor:
        """The features forecast for `step`, those of all streams one after the other: a fresh tensor (ΣB, ...).

        Raises StateError for a stream and site that were never recorded.
        """
        if len(streams) == 1:
            return self.predictor.predict(self._state(streams[0], site), step)
        like = self._stored(streams[0], site).buffers[0]
        chunks = self._chunks(streams, site)
        out = torch.empty((chunks[-1].stop, *like.shape[1:]), dtype=like.dtype, device=self._homes[streams[0], site])
        for stream, chunk in zip(streams, chunks, strict=True):
            self.predictor.predict(self._state(stream, site), step, out[chunk])
        return out

    def forecast_added(self, streams: Sequence[Hashable], site: Hashable, step: float, to: Tensor,
                       gate: Tensor) -> Tensor:
        """to + gate · forecast for all streams one after the other, fresh: to (ΣB, T, D), gate (ΣB or 1, 1, D)."""
        if len(streams) == 1:
            return self.predictor.predict_added(self._state(streams[0], site), step, to, gate)
        out = kernels.empty_for_sum(to, gate, self._stored(streams[0], site).buffers[0])
        gates = gate.expand(len(to), -1, -1)
        for stream, chunk in zip(streams, self._chunks(streams, site), strict=True):
            self.predictor.predict_added(self._state(stream, site), step, to[chunk], gates[chunk], out[chunk])
        return out

    def _chunks(self, streams: Sequence[Hashable], site: Hashable) -> list[slice]:
        """Where each stream's samples lie, one stream behind the other."""
        ends = [*itertools.accumulate((len(self._stored(stream, site).buffers[0]) for stream in streams), initial=0)]
        return [slice(*pair) for pair in itertools.pairwise(ends)]

    def compare(self, stream: Hashable, site: Hashable, feature: Tensor, step: float) -> Tensor:
        """How far the forecast for `step` is from the feature: `AbstractPredictor.compare`."""
        return self.predictor.compare(self._state(stream, site), feature, step)

    def compare_reuse(self, stream: Hashable, site: Hashable, feature: Tensor) -> Tensor:
        """How far the last recorded feature is from this one: `AbstractPredictor.compare_reuse`."""
        return self.predictor.compare_reuse(self._state(stream, site), feature)

    def _state(self, stream: Hashable, site: Hashable) -> PredictorState:
        """On the device where all is computed."""
        state = self._stored(stream, site)
        return state if self.storage is None else state.to(self._homes[stream, site])

    def _stored(self, stream: Hashable, site: Hashable) -> PredictorState:
        try:
            return self._states[stream, site]
        except KeyError:
            raise StateError(f"nothing was recorded for stream {stream!r} at site {site!r}") from None

    @property
    def nbytes(self) -> int:
        """Bytes held by the buffers."""
        return sum(state.nbytes for state in self._states.values())

    def forget(self, stream: Hashable) -> None:
        """Drops all that was recorded for a stream."""
        self._states = {key: state for key, state in self._states.items() if key[0] != stream}

    def clear(self) -> None:
        self._states.clear()
