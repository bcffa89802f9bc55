"""All predictor states of a run, one for each stream and site."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from .errors import StateError
from .predictor import AbstractPredictor, PredictorState


class FeatureCache:
    """(stream, site) -> predictor state.

    A stream is one trajectory of features that must not be mixed with another (a prompt, its opposite, a window); a
    site is a place in the network. Both are any hashable keys.
    """

    def __init__(self, predictor: AbstractPredictor):
        self.predictor = predictor
        self._states: dict[tuple[Hashable, Hashable], PredictorState] = {}

    def __contains__(self, key: tuple[Hashable, Hashable]) -> bool:
        return key in self._states

    def __len__(self) -> int:
        return len(self._states)

    def record(self, stream: Hashable, site: Hashable, feature: Tensor, step: float) -> PredictorState:
        """Updates a site's state with the feature, (B, ...), of a full step.

        Raises StateError for another shape, dtype or device than before.
        """
        state = self._states.get((stream, site), self.predictor.init())
        self._states[stream, site] = state = self.predictor.update(state, feature, step)
        return state

    def forecast(self, stream: Hashable, site: Hashable, step: float) -> Tensor:
        """The feature forecast for `step`. Raises StateError for a stream and site that were never recorded."""
        try:
            state = self._states[stream, site]
        except KeyError:
            raise StateError(f"nothing was recorded for stream {stream!r} at site {site!r}") from None
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
