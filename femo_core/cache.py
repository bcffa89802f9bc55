"""All predictor states of a run, one for each stream and site."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

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
        state = self._states.get((stream, site))
        if state is None or state.step == step:
            return None
        return self.predictor.compared_norms(state.to(feature.device), feature, step)

    def record(self, stream: Hashable, site: Hashable, feature: Tensor, step: float,
               norms: Tensor | None = None) -> PredictorState:
        """Updates a site's state with the feature, (B, ...), of a full step. norms: its `compared_norms`, if known.

        Raises StateError for another shape, dtype or device than before.
        """
        state = self._states.get((stream, site), self.predictor.init())
        if self.storage is not None:
            self._homes[stream, site] = feature.device
            state = state.to(feature.device)
        state = self.predictor.update(state, feature, step, norms)
        self._states[stream, site] = state if self.storage is None else state.to(self.storage)
        return state

    def forecast(self, stream: Hashable, site: Hashable, step: float) -> Tensor:
        """The feature forecast for `step`. Raises StateError for a stream and site that were never recorded."""
        try:
            state = self._states[stream, site]
        except KeyError:
            raise StateError(f"nothing was recorded for stream {stream!r} at site {site!r}") from None
        if self.storage is not None:
            state = state.to(self._homes[stream, site])
        return self.predictor.predict(state, step)

    @property
    def nbytes(self) -> int:
        """Bytes held by the buffers."""
        return sum(state.nbytes for state in self._states.values())

    def forget(self, stream: Hashable) -> None:
        """Drops all that was recorded for a stream."""
        self._states = {key: state for key, state in self._states.items() if key[0] != stream}

    def clear(self) -> None:
        self._states.clear()
