"""What a run records and forecasts: features, by stream and site."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

from .. import kernels
from ..cache import FeatureCache
from ..predictor import AbstractPredictor


class Features:
    """The cache of one run, and what is found out as it is filled. Steps here are the predictor's coordinates.

    share: as ForecastSession's.
    """

    def __init__(self, predictor: AbstractPredictor, storage: torch.device | None,
                 share: Callable[[Tensor], Tensor] | None):
        self.cache = FeatureCache(predictor, storage)
        self.peak_bytes = 0
        self._share = share
        self._adapted: dict[Hashable, list[Tensor]] = {}  # β of the sites recorded so far in this call
        self._nonfinite: dict[torch.device, Tensor] = {}

    def take(self, stream: Hashable, site: Hashable, feature: Tensor, step: float, norms: Tensor | None) -> None:
        """Records a feature, (B, ...). Raises StateError as the predictor does."""
        state = self.cache.record(stream, site, feature, step, norms)
        flag = kernels.is_nonfinite(feature)
        known = self._nonfinite.get(feature.device)
        self._nonfinite[feature.device] = flag if known is None else known | flag
        if isinstance(state.beta, Tensor):
            self._adapted.setdefault(stream, []).append(state.beta)

    def end(self, stream: Hashable) -> Tensor | None:
        """All of the stream's have been taken: its adapted β, one for each sample, the mean over the sites."""
        self.peak_bytes = max(self.peak_bytes, self.cache.nbytes)
        betas = self._adapted.pop(stream, [])
        return torch.stack(betas).mean(0) if betas else None

    def shared_norms(self, stream: Hashable, features: Mapping[Hashable, Tensor],
                     step: float) -> dict[Hashable, Tensor]:
        """By site, what the predictor compares, of the whole features: one message for all of them."""
        if self._share is None:
            return {}
        own = {site: self.cache.compared_norms(stream, site, feature, step) for site, feature in features.items()}
        known = {site: norms for site, norms in own.items() if norms is not None}
        if not known:
            return {}
        return dict(zip(known, self._share(torch.stack([*known.values()])).unbind(), strict=True))

    def relative_errors(self, stream: Hashable, site: Hashable, feature: Tensor, step: float, shared: bool) -> Tensor:
        """‖forecast − feature‖ / ‖feature‖ of what would have been forecast, the mean over the samples; and the same of
        the last recorded feature, if that had been used again: (2,).

        shared: of the whole feature, where this process holds but a part. The second is nan then: processes would
        draw different conclusions from their parts.
        """
        norms = self.cache.compare(stream, site, feature, step)
        if self._share is not None:
            of_feature, _, of_error = self._share(norms) if shared else norms
            error = (of_error / of_feature).mean()
            return torch.stack([error, torch.full_like(error, torch.nan)])
        of_feature, _, of_error = norms
        errors = torch.stack([of_error, self.cache.compare_reuse(stream, site, feature)[2]])
        return (errors / of_feature).mean(1)

    @property
    def any_nonfinite(self) -> bool:
        """Whether one held NaN or infinity. Waits for the device."""
        return any(bool(flag) for flag in self._nonfinite.values())
