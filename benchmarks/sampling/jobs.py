"""What is drawn: how many steps, which seeds and prompts; those for tuning apart from those that are reported."""

from __future__ import annotations

import random

from benchmarks.models import drawings
from benchmarks.sampling.subjects import Job

STEPS = 50
LIMIT_STEPS = 500  # of a second-order solver: the limit of very many steps
SEEDS = (0, 1, 2)
TUNING_SEEDS = (100, 101, 102)


def random_prompts(seed: int, count: int, tuning: bool = False) -> tuple[str, ...]:
    """Random prompts; half of the classes are kept for tuning."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        colour, thing, background = (rng.choice(list(group)) for group in (
            drawings.COLOURS, drawings.THINGS, drawings.BACKGROUNDS))
        if for_tuning(colour, thing) == tuning:
            found.append(f"{colour} {thing} {background}")
    return tuple(found)


def random_job(seeds: tuple[int, ...], samples: int, tuning: bool = False) -> Job:
    """So many pictures of each seed."""
    return Job(tuple(prompt for seed in seeds for prompt in random_prompts(seed, samples, tuning)), seeds)


def for_tuning(colour: str, thing: str) -> bool:
    return (list(drawings.COLOURS).index(colour) + list(drawings.THINGS).index(thing)) % 2 == 0
