"""Where what a stream was forecast from no longer tells what comes: something within the network was switched."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable

from ..plans.readback import Readback

FAR_WORSE = 3.0  # than plain reuse, a forecast: above that of orders that suit the run, whatever its noise levels
SMALLEST = 1.0  # error of a forecast: less than no forecast at all would have; short of it steep paths look alike
SURPRISE = 0.5  # of reuse's error: a forecast that is farther off has not seen a change coming
MOST = 3  # times in a run and stream: where it goes on after that, noise or a high order is the reason


class Breaks:
    """Of one run. A switch leaves a leap between two recorded features, which nothing had foretold and which forecasts
    prolong: at the next full step they turn out to be far worse than the last feature alone would have been. Then
    history starts afresh.

    Errors are looked at when they have come from the device by themselves, never waited for.
    """

    def __init__(self) -> None:
        self._coming: defaultdict[Hashable, list[Readback]] = defaultdict(list)
        self._surprised: dict[Hashable, bool] = {}  # at the last full step: whether the forecast did little for it
        self._found: Counter[Hashable] = Counter()

    def measured(self, stream: Hashable, errors: Readback) -> None:
        """At a full step: of the forecast for it, and of reuse."""
        self._coming[stream].append(errors)

    def found(self, stream: Hashable) -> bool:
        """Whether there was one at the stream's last full step, as far as is known by now. Each is told once."""
        coming, broken = self._coming[stream], False
        while coming and (errors := coming[0].arrived()) is not None:
            del coming[0]
            forecast, reuse = errors
            # Neither holds of what is not a number.
            broken = forecast > SMALLEST and forecast > FAR_WORSE * reuse and self._surprised.get(stream, True)
            self._surprised[stream] = not forecast < reuse * SURPRISE
        broken = broken and self._found[stream] < MOST
        self._found[stream] += broken
        return broken
