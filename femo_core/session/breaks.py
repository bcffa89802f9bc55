"""Where what a stream was forecast from no longer tells what comes: something within the network was switched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from ..plans.readback import Readback

FAR_WORSE = 3.0  # than plain reuse, a forecast: above that of orders that suit the run, whatever its noise levels
SMALLEST = 0.05  # error of a forecast that is worth it
MOST = 3  # times in a run and stream: where it goes on after that, noise or a high order is the reason


class Breaks:
    """Of one run. A switch leaves a leap between two recorded features, which forecasts prolong: at the next full step
    they turn out to be far worse than the last feature alone would have been. Then history starts afresh.

    Errors are looked at when they have come from the device by themselves, never waited for.
    """

    def __init__(self) -> None:
        self._coming: dict[Hashable, Readback] = {}
        self._found: Counter[Hashable] = Counter()

    def measured(self, stream: Hashable, errors: Readback) -> None:
        """At a full step: of the forecast for it, and of reuse."""
        if self._found[stream] < MOST:
            self._coming[stream] = errors

    def found(self, stream: Hashable) -> bool:
        """Whether there was one at the stream's last full step, as far as is known by now. Each is told once."""
        errors = self._coming[stream].arrived() if stream in self._coming else None
        if errors is None:
            return False
        del self._coming[stream]
        forecast, reuse = errors
        if not (forecast > SMALLEST and forecast > FAR_WORSE * reuse):  # also where one is not a number
            return False
        self._found[stream] += 1
        return True
