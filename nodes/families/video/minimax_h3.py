"""MiniMax-H3: one list of tokens, text, keyframes and references first, then audio and video, which are its targets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .. import Family, HeadArgs, HeadView, of_class


def targets(args: HeadArgs, _samples: int) -> Tensor:
    """(1, tokens, D), of a head's arguments: the state (S, D), a time embedding, and of the video and of the audio
    where they start and stop in it, and their row of the embedding. The targets are its end."""
    state, _, *segments = args
    return state[_start(segments):][None]


def with_targets(args: HeadArgs, feature: Tensor) -> HeadArgs:
    """All that comes before them is left out."""
    _, time, *segments = args
    start = _start(segments)
    moved = [(begin - start, end - start, row) for begin, end, row in segments[:2]]
    return (feature[0], time, *moved, *segments[2:])


def _start(segments: Sequence[tuple[int, int, object]]) -> int:
    return min(segment[0] for segment in segments[:2])


def tokens(model: nn.Module, index: int, shape: Sequence[int]) -> int:
    """Of an audio (B, C, channels, moments) one for each number, of a video by patch."""
    patch = (1, 1) if index else model.patch_size
    return math.prod(math.ceil(side / part) for side, part in zip(shape[2:], patch, strict=True))


FAMILY = Family(
    name="MiniMax-H3",
    matches=of_class("comfy.ldm.minimax.model.MiniMaxH3Model"),
    heads=("final_layer",),
    view=HeadView(targets, with_targets),
    heads_see_references=False,
    blocks=("blocks",),
    embedders=("audio_patch_proj", "condition_proj", "token_refiner", "video_patch_proj"),
    tokens=tokens,
)
