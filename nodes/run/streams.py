"""Which stream each chunk of a batch belongs to.

A stream is one trajectory of features that must not be mixed with another: a forecast for it is made from what was
recorded under its key, and from nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .switches import MOST_VALUES, in_words, switches_of


class StreamKey(NamedTuple):
    """What makes a stream another one."""

    prompt: Hashable  # the uuid of its conditioning
    opposite: Hashable  # positive or negative: area prompts share a uuid with their opposite
    call: int  # within the evaluation: perturbed-attention guidance calls again with the same uuid
    window: tuple[int, ...] | None  # of the frames, where the host takes long videos in parts
    shape: tuple[int, ...]  # of the chunk
    dtype: torch.dtype
    device: str
    switches: frozenset[tuple[Hashable, Hashable]]  # which parts of the network run, and what is put in their place
    conditioning: Hashable  # shapes of what is not the prompt's alone
    controls: Hashable  # which ControlNets have their say
    repeat: int = 0  # what is alike all the same is told apart by its order


class StreamKeys:
    """Of one run. It is told where evaluations begin, and the host's calls within them.

    warn: told what was switched in mid-run.
    """

    def __init__(self, warn: Callable[[str], None] = lambda _: None) -> None:
        self._warn = warn
        self._call = 0
        self._seen: Counter[StreamKey] = Counter()  # in this call
        self._switched: dict[StreamKey, frozenset[Any]] = {}  # by the rest of the key, what it was the last time
        self._values: defaultdict[Hashable, set[Hashable]] = defaultdict(set)  # of each switch in this run
        self._notes: set[str] = set()  # names in the options that the network writes for its blocks

    def begin_evaluation(self) -> None:
        self._call = 0
        self._seen.clear()

    def begin_call(self) -> None:
        self._call += 1
        self._seen.clear()

    def of(self, x: Tensor, options: dict[str, Any], conditioning: Hashable, controls: Hashable,
           hooks: Mapping[Hashable, Hashable] | None = None) -> list[Hashable]:
        """A key for each chunk of the batch x, (chunks · B, ...), by the host's transformer_options.

        None if the host does not say what the rows are.
        """
        uuids, opposites = options.get("uuids"), options.get("cond_or_uncond")
        if not uuids or not opposites or len(uuids) != len(opposites) or x.shape[0] % len(uuids):
            return []
        window = getattr(options.get("context_window"), "index_list", None)
        switches = self._switches({name: value for name, value in switches_of(options) if name not in self._notes} |
                                  dict(hooks or {}))
        streams: list[Hashable] = []
        for uuid, opposite in zip(uuids, opposites, strict=True):
            key = StreamKey(
                uuid, opposite, self._call, tuple(window) if window else None,
                (x.shape[0] // len(uuids), *x.shape[1:]), x.dtype, str(x.device), switches, conditioning, controls)
            streams.append(key._replace(repeat=self._seen[key]))
            self._seen[key] += 1
            self._say_what_switched(key)
        return streams

    @contextmanager
    def noting(self, options: dict[str, Any]) -> Iterator[None]:
        """While open, the network runs with these options. Where two calls share them (tiles), the second finds what
        the first has written there, which switches nothing."""
        before = dict(options)
        yield
        self._notes.update(name for name, value in options.items() if value is not before.get(name))

    def _switches(self, switches: Mapping[Hashable, Hashable]) -> frozenset[tuple[Hashable, Hashable]]:
        """But those that have taken too many values: what counts steps must not make each of them a stream."""
        for name, value in switches.items():
            if len(self._values[name]) <= MOST_VALUES:
                self._values[name].add(value)
        return frozenset((name, value) for name, value in switches.items() if len(self._values[name]) <= MOST_VALUES)

    def _say_what_switched(self, key: StreamKey) -> None:
        rest = key._replace(switches=frozenset())
        before = self._switched.setdefault(rest, key.switches)
        if before != key.switches:
            self._switched[rest] = key.switches
            for name in sorted({in_words(name) for name, _ in before ^ key.switches}):
                self._warn(f"{name} changes in mid-run: nothing is forecast across it, which takes more full steps")
