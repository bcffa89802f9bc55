"""What this package raises, and the checks that raise it."""

from __future__ import annotations

import math
from collections.abc import Callable


class StateError(ValueError):
    """A predictor's state does not fit the call: nothing recorded yet, or another shape, dtype or device."""


def check_integer(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raises ValueError unless `value` is an int (not a bool) in low … high."""
    allowed = f"{low} … {high}" if high is not None else f"{low} or more"
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a whole number, {allowed}; got {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be {allowed}; got {value}")


def check_number(name: str, value: float, allowed: str, ok: Callable[[float], bool]) -> None:
    """Raises ValueError, saying what is `allowed`, unless `value` is a finite number and `ok(value)`."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not ok(value):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be {allowed}; got {value!r}")
