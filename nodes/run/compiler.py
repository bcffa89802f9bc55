"""ComfyUI's model compiler, where it has one (0.34 and later).

It notes what a network allocates between two marks, and expects the same the next time. What is allocated there and
outlives it breaks that, and a run that runs its blocks now and then is never the same twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from comfy.cli_args import args

try:
    import comfy.model_prefetch as prefetch
except ImportError:  # before 0.9
    prefetch: Any = None

SWITCH = "disable_comfy_compiler"  # of the host's arguments; it asks for it at each call


def paused() -> AbstractContextManager[Any]:
    """While open, what is allocated is none of the compiler's business."""
    pause = getattr(prefetch, "pause_malloc_graph", None)
    return pause() if pause is not None else nullcontext()


@contextmanager
def off(wanted: bool) -> Iterator[None]:
    """While open, the host does not compile, if that is wanted."""
    before = getattr(args, SWITCH, None)
    if not wanted or before is None:
        yield
        return
    setattr(args, SWITCH, True)
    try:
        yield
    finally:
        setattr(args, SWITCH, before)
