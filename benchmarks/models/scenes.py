"""Scenes of several drawings, made here: pictures whose layout the prompt leaves open.

A scene is 64 × 64 RGB: two to five of the ten things of `drawings.py`, each of any colour, size, place and turn, one
over the other on a ground that runs from one colour to another. Its prompt is two words ("red house"): what lies on
top. All else is left to chance, so that the first steps of a run have much to decide.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.models.drawings import BACKGROUNDS, COLOURS, OVERSAMPLE, SIZE, THINGS, WORDS, paint

MOST = 5  # drawings in a scene


def draw_scene(thing: str, colour: str, rng: random.Random) -> Image.Image:
    """One scene, a 64 × 64 RGB image, with this thing of this colour on top."""
    pixels = SIZE * OVERSAMPLE
    image = Image.fromarray(_ground(rng, pixels))
    canvas = ImageDraw.Draw(image)
    things = [(rng.choice(THINGS), rng.choice(list(COLOURS))) for _ in range(rng.randint(1, MOST - 1))]
    for what, painted in (*things, (thing, colour)):
        radius = rng.uniform(0.13, 0.3) * pixels
        centre = tuple(rng.uniform(0.8 * radius, pixels - 0.8 * radius) for _ in range(2))
        paint(canvas, what, painted, centre, radius, rng.uniform(-0.4, 0.4))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` random scenes as (count, 64, 64, 3) uint8 and their words as (count, 2) indices into drawings.WORDS."""
    rng = random.Random(seed)
    images, words = [], []
    for _ in range(count):
        colour, thing = rng.choice(list(COLOURS)), rng.choice(THINGS)
        images.append(np.asarray(draw_scene(thing, colour, rng)))
        words.append([WORDS.index(colour), WORDS.index(thing)])
    return np.stack(images), np.array(words)


def _ground(rng: random.Random, pixels: int) -> np.ndarray:
    """(pixels, pixels, 3) uint8: from one colour to another, in any direction."""
    colours = [np.array(rng.choice(list((COLOURS | BACKGROUNDS).values())), dtype=float) for _ in range(2)]
    angle = rng.uniform(0, math.tau)
    rows, columns = np.mgrid[-1:1:pixels * 1j, -1:1:pixels * 1j]
    share = (0.5 + 0.35 * (math.cos(angle) * columns + math.sin(angle) * rows)).clip(0, 1)[..., None]
    return (colours[0] * (1 - share) + colours[1] * share).astype(np.uint8)
