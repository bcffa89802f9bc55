"""Which stream each chunk of a batch belongs to.

A stream is one trajectory of features that must not be mixed with another: a forecast for it is made from what was
recorded under its key, and from nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class StreamKey(NamedTuple):
    """What makes a stream another one."""

    prompt: Hashable  # the uuid of its conditioning
    opposite: Hashable  # positive or negative: area prompts share a uuid with their opposite
    call: int  # within the evaluation: perturbed-attention guidance calls again with the same uuid
    window: tuple[int, ...] | None  # of the frames, where the host takes long videos in parts
    shape: tuple[int, ...]  # of the chunk
    dtype: torch.dtype
    device: str
    replaced_blocks: frozenset[Hashable]  # as skip-layer guidance does in one of its calls
    conditioning: Hashable  # shapes of what is not the prompt's alone
    controls: Hashable  # which ControlNets have their say
    repeat: int = 0  # what is alike all the same is told apart by its order


class StreamKeys:
    """Of one run. It is told where evaluations begin, and the host's calls within them."""

    def __init__(self) -> None:
        self._call = 0
        self._seen: Counter[StreamKey] = Counter()  # in this call

    def begin_evaluation(self) -> None:
        self._call = 0
        self._seen.clear()

    def begin_call(self) -> None:
        self._call += 1
        self._seen.clear()

    def of(self, x: Tensor, options: dict[str, Any], conditioning: Hashable, controls: Hashable) -> list[Hashable]:
        """A key for each chunk of the batch x, (chunks · B, ...), by the host's transformer_options.

        None if the host does not say what the rows are.
        """
        uuids, opposites = options.get("uuids"), options.get("cond_or_uncond")
        if not uuids or not opposites or len(uuids) != len(opposites) or x.shape[0] % len(uuids):
            return []
        window = getattr(options.get("context_window"), "index_list", None)
        replaced = frozenset(options.get("patches_replace", {}).get("dit", {}))
        streams: list[Hashable] = []
        for uuid, opposite in zip(uuids, opposites, strict=True):
            key = StreamKey(
                uuid, opposite, self._call, tuple(window) if window else None,
                (x.shape[0] // len(uuids), *x.shape[1:]), x.dtype, str(x.device), replaced, conditioning, controls)
            streams.append(key._replace(repeat=self._seen[key]))
            self._seen[key] += 1
        return streams
