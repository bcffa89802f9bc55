"""What may be switched within a run, as far as it can be read off a call: each change makes the streams other ones.

That is what has a name: flags and words among the transformer_options (which parts of the network run), patches,
replaced blocks and wrappers that come or go, strengths of hooks (core's timed LoRAs). What changes inside a function or
bit by bit (a patch that goes by the noise level, a strength with many keyframes) can't be read off; a session notices
its effect. Numbers and tensors are left to that, too: most of them change with every step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

MOST_VALUES = 4  # of a switch in one run; what takes more counts something, the steps perhaps

_ROWS = {"uuids", "cond_or_uncond"}  # which chunk of the batch is what: streams have keys of their own for that
_INSIDE = ("apply_model", "diffusion_model")  # kinds of wrappers that are around the network


def switches_of(options: dict[str, Any]) -> Iterator[tuple[Hashable, Hashable]]:
    """Names and values, of a call's transformer_options."""
    for name, value in options.items():
        if name not in _ROWS and _is_plain(value):
            yield name, tuple(value) if isinstance(value, list) else value
    for group, replaced in _parts(options, "patches_replace"):
        yield from (((group, key), True) for key in replaced)
    for name, patches in _parts(options, "patches"):
        yield ("patches", name), len(patches)
    for kind, wrappers in _parts(options, "wrappers"):
        if kind in _INSIDE:
            yield from (((kind, key), len(found)) for key, found in wrappers.items())


def hooks_of(model: Any) -> dict[Hashable, Hashable]:
    """Those that are on a BaseModel in this call, with their strengths. One with many keyframes changes bit by bit."""
    group = getattr(getattr(model, "current_patcher", None), "current_hooks", None)
    return {
        ("hook", hook.hook_ref): hook.strength if len(hook.hook_keyframe.keyframes) <= MOST_VALUES else None
        for hook in getattr(group, "hooks", ())}


def in_words(name: Hashable) -> str:
    """Of a switch, as a user may know it."""
    kind, what = name if isinstance(name, tuple) and len(name) == 2 else ("", name)
    return {"hook": "a hook (a timed LoRA)"}.get(kind, f"{kind} {what}".strip())


def _parts(options: dict[str, Any], name: str) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in (options.get(name) or {}).items() if isinstance(value, dict | list)]


def _is_plain(value: Any) -> bool:
    """A flag, a word, or a list of such or of places."""
    if isinstance(value, list | tuple):
        return all(isinstance(part, bool | str | int) for part in value)
    return value is None or isinstance(value, bool | str)
