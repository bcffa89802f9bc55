"""Files that several processes may share."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """At once, so that who reads the file meanwhile finds what was there before or all of it; the last writer wins.

    Raises OSError where it can't be written.
    """
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def put_aside(path: Path) -> str:
    """A damaged one, under another name. Returns, in words, where it is now."""
    aside = path.with_name(f"{path.stem}.damaged")
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"it can't be put aside ({error})"
    return f"it is kept as {aside.name}"
