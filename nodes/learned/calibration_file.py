"""Calibrations on disk: what FeMo Calibrate saves of full runs, and cache nodes choose full steps by."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ...femo_core import lasting_step_lengths
from ...femo_core.errors import check_integer
from ..files import write_whole

VERSION = 1  # of the files
NONE = "none"  # what a cache node has where no calibration is chosen
LONGEST_RUN = 100  # steps; to choose among more takes longer than a user would wait
SAME_LEVEL = 1e-3  # of the highest noise level: nearer ones are the same


@dataclass(frozen=True)
class SavedCalibration:
    """What one full run tells of a model, or several as their mean.

    model: its `fingerprint`. sigmas: the run's noise levels, one more than its S steps. signals: at each of them the
    picture's factor in x = signal · picture + σ · noise. matrix: (S, S), the mean inner products of the guided outputs
    at each pair of steps, as femo_core's TrajectoryGram has it. runs: how many it is the mean of. sampler, shift,
    guidance: of the last of them, for the reader; nothing goes by them. (The scheduler's name is not known to a run;
    the levels are what it came to.)

    Raises ValueError for numbers that do not fit together or are not finite.
    """

    model: str
    sigmas: tuple[float, ...]
    signals: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    runs: int = 1
    sampler: str = field(default="", compare=False)
    shift: float | None = field(default=None, compare=False)
    guidance: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        object.__setattr__(self, "signals", tuple(self.signals))
        object.__setattr__(self, "matrix", tuple(tuple(row) for row in self.matrix))
        if not isinstance(self.model, str):
            raise ValueError(f"model must be a fingerprint; got {self.model!r}")
        check_integer("steps", self.steps, 1, LONGEST_RUN)
        check_integer("runs", self.runs, 1)
        if len(self.signals) != len(self.sigmas):
            raise ValueError(f"signals must be {len(self.sigmas)}, as many as sigmas; got {len(self.signals)}")
        if any(len(row) != self.steps for row in (self.matrix, *self.matrix)):
            raise ValueError(f"matrix must be {self.steps} × {self.steps}, one less than there are sigmas")
        if not all(map(math.isfinite, (*self.sigmas, *self.signals, *(value for row in self.matrix for value in row)))):
            raise ValueError("matrix must be finite: the run that it comes from gave NaN or infinity")

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

    def averaged_into(self, earlier: SavedCalibration) -> SavedCalibration:
        """The mean of all runs of both.

        Raises ValueError for another model or other noise levels.
        """
        if earlier.model != self.model:
            raise ValueError(f"it is of another model ({earlier.model}; this one is {self.model})")
        if not earlier.same_levels(self.sigmas):
            raise ValueError(f"it is of {earlier.steps} steps at other noise levels (this run has {self.steps})")
        runs = earlier.runs + self.runs
        matrix = [[(a * earlier.runs + b * self.runs) / runs for a, b in zip(old, new, strict=True)]
                  for old, new in zip(earlier.matrix, self.matrix, strict=True)]
        return SavedCalibration(**{**vars(self), "matrix": matrix, "runs": runs})


def fingerprint(model: Any) -> str:
    """Of a BaseModel of ComfyUI: its class, latent format, kind of prediction, and the shapes of its weight matrices.

    Values, names and dtypes do not count, nor does how they are quantised as long as shapes stay: a LoRA, a merge, a
    finetune or fp8 weights make no other model.
    """
    shapes = sorted(tuple(weight.shape) for weight in model.diffusion_model.parameters() if weight.ndim > 1)
    digest = hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]
    return f"{type(model).__name__}, {type(model.latent_format).__name__}, {model.model_type.name}, {digest}"


def folder() -> Path:
    """In the default user's folder, which ComfyUI serves at /userdata."""
    return Path(folder_paths.get_user_directory(), "default", "femo_calibrations")


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.json"))


def path_of(name: str) -> Path:
    """Raises ValueError for what is no plain name of a file, so that none leads out of the folder."""
    if not re.fullmatch(r"\w[\w .-]{0,99}", name) or name == NONE:
        raise ValueError(f"name must be letters, digits, spaces and . _ -, no folders, at most 100, and not {NONE}; "
                         f"got {name!r}")
    return folder() / f"{name}.json"


def stamp(name: str) -> str:
    """Changes whenever the file does."""
    try:
        found = path_of(name).stat()
        return f"{found.st_mtime_ns} {found.st_size}"
    except (OSError, ValueError):
        return ""


def read(name: str) -> SavedCalibration:
    """Raises ValueError where there is no such file, or it is not one of ours; OSError where it can't be read."""
    path = path_of(name)
    if not path.is_file():
        raise ValueError(f"there is no '{path.name}' in {path.parent}; FeMo Calibrate makes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] == VERSION:
            return SavedCalibration(**{one.name: content[one.name] for one in fields(SavedCalibration)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged or no calibration ({error!r}): delete it and make it anew") from error
    raise ValueError(f"{path.name} is of version {content['version']}, this pack reads {VERSION}: make it anew")


def write(name: str, saved: SavedCalibration) -> None:
    """Raises ValueError for a bad name, OSError where it can't be written."""
    path = path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": VERSION, "steps": saved.steps, **asdict(saved)}
    write_whole(path, json.dumps(content, allow_nan=False))
