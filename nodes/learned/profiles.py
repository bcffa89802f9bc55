"""Profiles on disk: what FeMo Auto has learned, a file for each model. Servers and machines may share them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import folder_paths

from ...femo_core import Profile, Recording
from ...femo_core.files import put_aside, write_whole
from .identity import alike, fingerprint, signature

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "results" / "profiles"  # sent in by users of real models


@dataclass(frozen=True)
class Kept:
    """Where a model's profile is, or will be; None where there is none yet. notice: what was wrong with the one there
    was."""

    path: Path
    profile: Profile | None = None
    notice: str = ""


def folder() -> Path:
    """In the default user's folder, which ComfyUI serves at /userdata."""
    return Path(folder_paths.get_user_directory(), "default", "femo_profiles")


def find(model: Any) -> Kept:
    """Of a BaseModel of ComfyUI: the first file of its kind whose weights are like its own; without any of the user's,
    one that comes with the pack.

    One that is damaged or no profile is put aside under another name, and learned anew. One that was learned in
    diffusers and given this name is taken for the model's.
    """
    name, own = fingerprint(model), signature(model)
    kept = _first(folder(), name, own)
    if kept.notice:
        return replace(kept, notice=f"{kept.notice}: {put_aside(kept.path)}, and the model is learned anew")
    return kept if kept.profile else replace(kept, profile=_first(SHIPPED, name, own).profile)


def file_name(model: str, number: int = 1) -> str:
    """Of a model's fingerprint; number: 2 and up for further models of the same one."""
    kind, *_, digest = re.sub(r"[^\w, ]", "", model).split(", ")
    return f"{kind}-{digest}{'' if number == 1 else f'-{number}'}.json"


def _first(where: Path, name: str, own: Sequence[float]) -> Kept:
    """The first file there, of this fingerprint, whose profile has a signature like its own; else where one would be.
    """
    for number in count(1):
        path = where / file_name(name, number)
        if not path.is_file():
            return Kept(path)
        try:
            profile = Profile.from_json(path.read_bytes())
            if not profile.may_be_of(name):
                raise ValueError(f"of another model ({profile.model})")
        except (OSError, ValueError) as error:
            return Kept(path, None, f"{path.name} is {error}")
        if alike(profile.signature, own):
            return Kept(path, profile)
    raise AssertionError  # count has no end


def add(model: Any, recording: Recording) -> Path:
    """To the model's profile; what another server has learned meanwhile stays. Raises OSError as writing does."""
    kept = find(model)
    profile = kept.profile or Profile(fingerprint(model), (recording,), signature(model))
    kept.path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept.path, profile.with_recording(recording).to_json())
    return kept.path
