"""One sampling run, for the host that calls it: ForecastSession. Its three trades have a file each."""

from .session import ForecastSession

__all__ = ["ForecastSession"]
