"""Profiles: what full runs told of a model, kept as a small JSON, for runs at any noise levels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..calibration import lasting_step_lengths
from ..errors import check_integer, check_number
from ..noise_levels import SAME_LEVEL, reaches, uncovered
from ..predictor import AbstractPredictor
from ..predictors.femo import FeMo
from ..predictors.scaled_taylor import ScaledTaylor
from ..predictors.taylorseer import TaylorSeer

VERSION = 2  # of the files; 1 held a single recording
LONGEST_RUN = 100  # steps; to choose among more takes longer than a user would wait
MOST_UNKNOWN = 0.05  # of a run, by what is left of an error in each step at the end: the last of many schedulers
PREDICTORS: dict[str, type[AbstractPredictor]] = {kind.__name__: kind for kind in (FeMo, ScaledTaylor, TaylorSeer)}


@dataclass(frozen=True)
class Tried:
    """Full steps and a predictor that did best of those tried out in closed loop, and the change that they made.

    change: ‖result − full run's‖ / ‖full run's‖ of the sampler's result; expected: what it was reckoned to be.
    Raises ValueError for what can't be.
    """

    budget: int
    steps: tuple[int, ...]
    predictor: AbstractPredictor
    change: float
    expected: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check_integer("budget", self.budget, 1)
        for name in ("change", "expected"):
            check_number(name, getattr(self, name), "above 0", lambda value: value > 0)

    @property
    def written(self) -> dict[str, Any]:
        return {**asdict(self), "predictor": {"kind": type(self.predictor).__name__, **asdict(self.predictor)}}

    @classmethod
    def read(cls, content: dict[str, Any]) -> Tried:
        """Raises KeyError, TypeError or ValueError for what is none."""
        values: dict[str, Any] = dict(content["predictor"])
        kind = PREDICTORS[values.pop("kind")]
        if "factors" in values:
            values["factors"] = tuple((step, factor) for step, factor in values["factors"])
        content = {**content, "predictor": kind(**values)}
        return cls(**content)


@dataclass(frozen=True)
class Recording:
    """What one full run told, or several at the same noise levels as their mean.

    sigmas: the run's noise levels, one more than its S steps. signals: at each of them the picture's factor in
    x = signal · picture + σ · noise. matrix: (S, S), the mean inner products of the guided outputs at each pair of
    steps, as TrajectoryGram has it. runs: how many it is the mean of. size: root mean square of the run's result, in
    the same units. stochastic: the sampler draws noise anew. tried: what was tried out on it. sampler, shift, guidance:
    of the last of the runs, for the reader; nothing goes by them. (The scheduler's name is not known to a run; the
    levels are what it came to.)

    Raises ValueError for numbers that do not fit together or are not finite.
    """

    sigmas: tuple[float, ...]
    signals: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    runs: int = 1
    size: float = 1.0
    stochastic: bool = False
    tried: tuple[Tried, ...] = ()
    sampler: str = field(default="", compare=False)
    shift: float | None = field(default=None, compare=False)
    guidance: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        object.__setattr__(self, "signals", tuple(self.signals))
        object.__setattr__(self, "matrix", tuple(tuple(row) for row in self.matrix))
        object.__setattr__(self, "tried", tuple(self.tried))
        check_integer("steps", self.steps, 1, LONGEST_RUN)
        check_integer("runs", self.runs, 1)
        if len(self.signals) != len(self.sigmas):
            raise ValueError(f"signals must be {len(self.sigmas)}, as many as sigmas; got {len(self.signals)}")
        if any(len(row) != self.steps for row in (self.matrix, *self.matrix)):
            raise ValueError(f"matrix must be {self.steps} × {self.steps}, one less than there are sigmas")
        if not all(map(math.isfinite, (*self.sigmas, *self.signals, *(value for row in self.matrix for value in row)))):
            raise ValueError("matrix must be finite: the run that it comes from gave NaN or infinity")
        if not (math.isfinite(self.size) and self.size > 0):
            raise ValueError(f"size must be above 0: the run that it comes from gave an empty picture; got {self.size}")

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def gram(self) -> Tensor:
        """The matrix, (S, S) float64."""
        return torch.tensor(self.matrix, dtype=torch.float64)

    @property
    def step_weights(self) -> list[float]:
        return lasting_step_lengths(self.sigmas, self.signals)

    def same_levels(self, sigmas: Sequence[float]) -> bool:
        """Whether a run has these noise levels, and so as many steps."""
        limit = SAME_LEVEL * max(self.sigmas)
        return len(sigmas) == len(self.sigmas) and all(
            abs(one - other) <= limit for one, other in zip(sigmas, self.sigmas, strict=True))

    def covers(self, sigmas: Sequence[float]) -> bool:
        """Whether it tells of a run at these levels, but for a part that hardly counts. Of levels that do not fall
        steadily it tells nothing."""
        if self.same_levels(sigmas):
            return True
        try:
            if self.steps < 2 or not reaches(self.sigmas, sigmas):
                return False
            unknown = {*uncovered(self.sigmas, sigmas)}
        except ValueError:
            return False
        flow = _flows(self.sigmas, self.signals)
        lengths = lasting_step_lengths(sigmas, [1 - sigma if flow else 1.0 for sigma in sigmas])
        part = sum(length for sigma, length in zip(sigmas, lengths, strict=False) if sigma in unknown)
        return part <= MOST_UNKNOWN * sum(lengths)

    @property
    def change_factor(self) -> float:
        """By how much the changes that were tried out exceed what they were reckoned to be: the geometric mean."""
        if not self.tried:
            return 1.0
        return math.exp(sum(math.log(one.change / one.expected) for one in self.tried) / len(self.tried))

    def averaged_into(self, earlier: Recording) -> Recording:
        """The mean of all runs of both. Raises ValueError for other noise levels."""
        if not earlier.same_levels(self.sigmas):
            raise ValueError(f"it is of {earlier.steps} steps at other noise levels (this run has {self.steps})")
        runs = earlier.runs + self.runs
        matrix = tuple(tuple((a * earlier.runs + b * self.runs) / runs for a, b in zip(old, new, strict=True))
                       for old, new in zip(earlier.matrix, self.matrix, strict=True))
        size = (earlier.size * earlier.runs + self.size * self.runs) / runs
        return replace(self, matrix=matrix, runs=runs, size=size, tried=())


@dataclass(frozen=True)
class Profile:
    """All that is known of a model.

    model: which one, in the host's words; those of a host other than ComfyUI begin with its name and ": ". signature:
    numbers of its weights that stay about the same under a finetune and tell two models of the same shapes apart; none
    where it has no such numbers. It holds no picture and no prompt.
    """

    model: str
    recordings: tuple[Recording, ...]
    signature: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "recordings", tuple(self.recordings))
        object.__setattr__(self, "signature", tuple(self.signature))
        if not isinstance(self.model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"model must be a fingerprint; got {self.model!r}")
        if not self.recordings:
            raise ValueError("recordings must be one or more; got none")

    def may_be_of(self, model: str) -> bool:
        """Whether it is this model's. Another host has other words for the same one, and is believed."""
        return self.model == model or _host(self.model) != _host(model)

    def serving(self, sigmas: Sequence[float], stochastic: bool = False,
                signals: Sequence[float] | None = None) -> Recording | None:
        """The recording that tells most of a run at these levels: of the same levels, else of most steps.

        signals: the run's, as of `Recording`; what was recorded of a model that mixes picture and noise otherwise is
        passed over.

        None where none of the same kind of sampler covers them: what a sampler that draws noise anew tells was measured
        to be worse than nothing for one that doesn't, and to expect a tenth of the change the other way round.
        """
        found = [one for one in self.recordings if one.stochastic == stochastic and one.covers(sigmas) and (
            signals is None or _flows(one.sigmas, one.signals) == _flows(sigmas, signals))]
        return max(found, default=None, key=lambda one: (one.same_levels(sigmas), one.steps))

    def with_recording(self, new: Recording) -> Profile:
        """One of the same levels and kind of sampler takes the earlier one's place."""
        others = (one for one in self.recordings
                  if one.stochastic != new.stochastic or not one.same_levels(new.sigmas))
        return replace(self, recordings=(*others, new))

    def to_json(self) -> str:
        recordings = [{**asdict(one), "tried": [tried.written for tried in one.tried]} for one in self.recordings]
        return json.dumps({"version": VERSION, **asdict(self), "recordings": recordings}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        """Raises ValueError for what is none, or of a version to come."""
        try:
            content = json.loads(text)
            version = content["version"]
            if version == 1:
                return cls(content["model"], (_recording(content),))
            if version == VERSION:
                return cls(content["model"], tuple(map(_recording, content["recordings"])),
                           tuple(map(float, content["signature"])))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"damaged or no calibration ({error!r})") from error
        raise ValueError(f"of version {version}, this pack reads 1 to {VERSION}")


def _host(model: str) -> str:
    """Of a fingerprint: ComfyUI's begin with none."""
    return model.partition(": ")[0] if ": " in model else ""


def _flows(sigmas: Sequence[float], signals: Sequence[float]) -> bool:
    """Whether picture and noise are mixed as flow models have it, x = (1 − σ) · picture + σ · noise."""
    return all(abs(sigma + signal - 1) < SAME_LEVEL for sigma, signal in zip(sigmas, signals, strict=True))


def _recording(content: dict[str, Any]) -> Recording:
    known: dict[str, Any] = {one.name: content[one.name] for one in fields(Recording) if one.name in content}
    known["tried"] = tuple(map(Tried.read, content.get("tried", ())))
    return Recording(**known)
