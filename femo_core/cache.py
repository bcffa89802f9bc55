"""All predictor states of a run, one for each stream and site."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

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

    def __iter__(self) -> Iterator[tuple[tuple[Hashable, Hashable], PredictorState]]:
        return iter(self._states.items())

    def record(self, stream: Hashable, site: Hashable, feature: Tensor, step: float) -> PredictorState:
        """Updates a site's state with the feature, (B, ...), of a full step.

        Another shape, dtype or device than before starts the site afresh: what was recorded no longer fits.
        """
        state = self._states.get((stream, site), self.predictor.init())
        try:
            state = self.predictor.update(state, feature, step)
        except StateError:
            state = self.predictor.update(self.predictor.init(), feature, step)
        self._states[stream, site] = state
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

    def clear(self) -> None:
        self._states.clear()
