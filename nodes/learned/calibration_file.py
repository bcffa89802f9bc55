"""Calibrations on disk: what FeMo Calibrate saves of full runs, and cache nodes choose full steps by.

A file is a profile (femo_core/profiles) under a name that the user gave, of one recording; those of FeMo Auto can be
used as well.
"""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

from ...femo_core import Profile
from ...femo_core.files import write_whole
from ..cache_config import NONE


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


def read(name: str) -> Profile:
    """Raises ValueError where there is no such file, or it is not one of ours; OSError where it can't be read."""
    path = path_of(name)
    if not path.is_file():
        raise ValueError(f"there is no '{path.name}' in {path.parent}; FeMo Calibrate makes one")
    try:
        return Profile.from_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}: delete it and make it anew") from error


def write(name: str, saved: Profile) -> None:
    """Raises ValueError for a bad name, OSError where it can't be written."""
    path = path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, saved.to_json())
