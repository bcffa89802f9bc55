"""What a run did, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class RunReport:
    """One sampling run: what was full, what was forecast, what it saved, or why nothing was.

    total_steps: the sampler's steps. full_steps, predicted_steps: their indices, by whether the network ran in them;
        one in neither was not evaluated.
    network_runs, network_runs_saved: calls of the network made and forecast instead (guidance may need two a step).
    seconds: wall time of the run. cache_bytes: most bytes that the buffers held.
    seconds_full_step, seconds_predicted_step: wall time of one evaluation in which the network ran, or did not; medians
        of this run. As the host sees it, which need not wait for the device.
    time_speedup: an estimate from these: if each evaluation had taken what a full one did, over what they took. 0 where
        nothing was forecast.
    errors: by full step, what would have been forecast there against what the network gave: {"step": coordinate,
        "stream": number, "error": ‖forecast − feature‖ / ‖feature‖, the mean over the samples}, at the last site.
    expected_errors: of a calibrated schedule, what the calibration expects `errors` to be: {"step": index, "error": …}.
    betas: Adapted-FeMo's β by full step: {"step": coordinate, "stream": number, "beta": one per sample, the mean over
        the sites}. Errors and betas are those of the first 50 streams, and where these are more than 1,000 rows,
        of every second, third, … step; betas those of the first 64 samples.
    reason: why nothing was skipped, else "". warnings: what the user should know, at most 50.
    settings: the predictor's, the schedule's, the tolerance, and the host's own words on the run.
    """

    total_steps: int = 0
    full_steps: tuple[int, ...] = ()
    predicted_steps: tuple[int, ...] = ()
    network_runs: int = 0
    network_runs_saved: int = 0
    seconds: float = 0.0
    cache_bytes: int = 0
    seconds_full_step: float = 0.0
    seconds_predicted_step: float = 0.0
    time_speedup: float = 0.0
    errors: tuple[dict[str, Any], ...] = ()
    expected_errors: tuple[dict[str, Any], ...] = ()
    betas: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def expecting(self, errors: Mapping[int, float]) -> RunReport:
        """With these `expected_errors`, by full step."""
        rows = tuple({"step": step, "error": error} for step, error in errors.items())
        return replace(self, expected_errors=rows)

    @property
    def flops_speedup(self) -> float:
        """Network runs of the unaccelerated run over those made. What lies outside the network is not counted."""
        return (self.network_runs + self.network_runs_saved) / max(1, self.network_runs)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "flops_speedup": round(self.flops_speedup, 3)}

    def summary(self) -> str:
        """One line for a log."""
        left_out = self.total_steps - len({*self.full_steps, *self.predicted_steps})
        line = (
            f"{len(self.full_steps)} full and {len(self.predicted_steps)} forecast of {self.total_steps} steps"
            f"{f' ({left_out} not evaluated)' if left_out else ''}, "
            f"{self.network_runs} network runs, {self.network_runs_saved} saved ({self.flops_speedup:.2f}x fewer), "
            f"{self.seconds:.2f} s, cache {self.cache_bytes / 2**20:.1f} MB"
        )
        return f"{line}; nothing skipped: {self.reason}" if self.reason else line
