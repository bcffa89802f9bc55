"""Coloured drawings of ten things, made here: the images that the small models are trained on.

A drawing is 64 × 64 RGB: one of ten things in one of eight colours on one of four backgrounds, its place, size and
turn drawn at random. Its prompt is three words ("red house day"), each a token with its own one-hot code.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
OVERSAMPLE = 4  # drawn larger and scaled down: smooth edges

THINGS = ("ball", "box", "house", "tree", "star", "heart", "moon", "flower", "fish", "cup")
COLOURS = {
    "red": (214, 48, 49), "orange": (240, 147, 43), "yellow": (249, 202, 36), "green": (39, 174, 96),
    "cyan": (34, 166, 179), "blue": (41, 88, 200), "purple": (142, 68, 173), "pink": (253, 121, 168),
}
BACKGROUNDS = {"day": (206, 232, 250), "night": (26, 30, 60), "paper": (247, 241, 227), "grass": (150, 190, 110)}
WORDS = (*COLOURS, *THINGS, *BACKGROUNDS)

Point = tuple[float, float]


def draw(thing: str, colour: str, background: str, rng: random.Random) -> Image.Image:
    """One drawing, a 64 × 64 RGB image."""
    pixels = SIZE * OVERSAMPLE
    image = Image.new("RGB", (pixels, pixels), BACKGROUNDS[background])
    radius = rng.uniform(0.32, 0.42) * pixels
    centre = tuple(pixels / 2 + rng.uniform(-1, 1) * (pixels / 2 - radius - 0.04 * pixels) for _ in range(2))
    paint(ImageDraw.Draw(image), thing, colour, centre, radius, rng.uniform(-0.12, 0.12))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def paint(canvas: ImageDraw.ImageDraw, thing: str, colour: str, centre: Point, radius: float, angle: float) -> None:
    """A thing on a canvas, over what is there. Units: pixels, radians."""
    _DRAW[thing](_Pen(canvas, centre, radius, angle, COLOURS[colour]))


def draw_many(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` random drawings as (count, 64, 64, 3) uint8 and their words as (count, 3) indices into WORDS."""
    rng = random.Random(seed)
    images, words = [], []
    for _ in range(count):
        choice = [rng.choice(list(group)) for group in (COLOURS, THINGS, BACKGROUNDS)]
        images.append(np.asarray(draw(choice[1], choice[0], choice[2], rng)))
        words.append([WORDS.index(word) for word in choice])
    return np.stack(images), np.array(words)


class _Pen:
    """Draws in a unit frame: x right, y down, |coordinates| about 1, turned by a small angle."""

    def __init__(self, canvas: ImageDraw.ImageDraw, centre: Point, radius: float, angle: float, colour):
        self.canvas, self.centre, self.radius, self.colour = canvas, centre, radius, colour
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.dark = tuple(int(c * 0.55) for c in colour)

    def at(self, x: float, y: float) -> Point:
        return (
            self.centre[0] + self.radius * (x * self.cos - y * self.sin),
            self.centre[1] + self.radius * (x * self.sin + y * self.cos),
        )

    def polygon(self, points, colour=None):
        self.canvas.polygon([self.at(*p) for p in points], fill=colour or self.colour)

    def circle(self, x: float, y: float, r: float, colour=None):
        self.polygon([(x + r * math.cos(a / 24 * math.tau), y + r * math.sin(a / 24 * math.tau)) for a in range(24)],
                     colour)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour=None):
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)


def _ball(pen: _Pen):
    pen.circle(0, 0, 1)
    pen.circle(-0.35, -0.35, 0.25, (255, 255, 255))


def _box(pen: _Pen):
    pen.rectangle(-0.85, -0.85, 0.85, 0.85)
    pen.rectangle(-0.85, -0.2, 0.85, 0.2, pen.dark)


def _house(pen: _Pen):
    pen.rectangle(-0.7, -0.1, 0.7, 0.9)
    pen.polygon([(-1, -0.1), (0, -1), (1, -0.1)], pen.dark)
    pen.rectangle(-0.2, 0.3, 0.2, 0.9, (255, 243, 200))


def _tree(pen: _Pen):
    pen.rectangle(-0.15, 0.3, 0.15, 1, (110, 74, 40))
    for top, width in ((-1, 0.55), (-0.5, 0.75), (0, 0.95)):
        pen.polygon([(0, top), (width, top + 0.65), (-width, top + 0.65)])


def _star(pen: _Pen):
    spokes = [(math.sin(i / 10 * math.tau), -math.cos(i / 10 * math.tau)) for i in range(10)]
    pen.polygon([(x * r, y * r) for (x, y), r in zip(spokes, (1.0, 0.42) * 5, strict=True)])


def _heart(pen: _Pen):
    curve = [i / 40 * math.tau for i in range(40)]
    pen.polygon([
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in curve
    ])


def _moon(pen: _Pen):
    outer = [(math.cos(a), math.sin(a)) for a in (math.radians(d) for d in range(50, 311, 10))]
    inner = [(0.45 + 0.8 * math.cos(a), 0.8 * math.sin(a)) for a in (math.radians(d) for d in range(285, 74, -10))]
    pen.polygon(outer + inner)


def _flower(pen: _Pen):
    for i in range(6):
        pen.circle(0.6 * math.cos(i / 6 * math.tau), 0.6 * math.sin(i / 6 * math.tau), 0.38)
    pen.circle(0, 0, 0.32, (255, 250, 210))


def _fish(pen: _Pen):
    body = [(0.65 * math.cos(i / 24 * math.tau) - 0.2, 0.5 * math.sin(i / 24 * math.tau)) for i in range(24)]
    pen.polygon([(0.25, 0), (1, -0.55), (1, 0.55)], pen.dark)
    pen.polygon(body)
    pen.circle(-0.5, -0.12, 0.12, (255, 255, 255))


def _cup(pen: _Pen):
    pen.circle(0.6, 0, 0.42, pen.dark)
    pen.circle(0.6, 0, 0.22, (255, 255, 255))
    pen.polygon([(-0.8, -0.75), (0.6, -0.75), (0.4, 0.8), (-0.6, 0.8)])


_DRAW = {
    "ball": _ball, "box": _box, "house": _house, "tree": _tree, "star": _star,
    "heart": _heart, "moon": _moon, "flower": _flower, "fish": _fish, "cup": _cup,
}
