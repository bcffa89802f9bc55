"""A report as a picture: what each step was, the forecast errors at full steps, the adapted β."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..femo_core import RunReport

SIZE = (960, 400)
LEFT, RIGHT = 70, 940
STRIP, ERRORS = (90, 130), (170, 340)
WHITE, INK, FAINT = (255, 255, 255), (40, 40, 40), (205, 205, 205)
FULL, PREDICTED, ERROR, BETA = (63, 142, 252), (126, 208, 165), (232, 163, 61), (209, 91, 156)
EXPECTED = INK
LETTERS = 125  # in a line
DECADES = 4  # of the errors' scale, from 1 down


def chart(report: RunReport, lines: Iterable[str]) -> Tensor:
    """An image (1, H, W, 3) in 0 … 1, with the lines of text above."""
    image = Image.new("RGB", SIZE, WHITE)
    draw = ImageDraw.Draw(image)
    text = "\n".join(line for part in lines for line in textwrap.wrap(part, LETTERS))
    draw.multiline_text((20, 12), text, INK, ImageFont.load_default(14), spacing=4)
    total = max(1, report.total_steps)
    width = (RIGHT - LEFT) / total

    def across(step: float) -> float:
        return LEFT + step * width

    for steps, colour in ((range(total), FAINT), (report.predicted_steps, PREDICTED), (report.full_steps, FULL)):
        for step in steps:
            draw.rectangle((across(step) + 1, STRIP[0], across(step + 1) - 1, STRIP[1]), fill=colour)
    _axis(draw, report)
    for step, error in _means(report.errors, "error").items():
        draw.rectangle((across(step) + 1, _up(_height(error)), across(step + 1) - 1, ERRORS[1]), fill=ERROR)
    for step, error in _means(report.expected_errors, "error").items():
        y = _up(_height(error))
        draw.line((across(step) - 1, y, across(step + 1) + 1, y), fill=EXPECTED, width=2)
    points = [(across(step + 0.5), _up((beta + 1) / 2)) for step, beta in _means(report.betas, "beta").items()]
    if len(points) > 1:
        draw.line(points, fill=BETA, width=2)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=BETA)
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)[None]


def _axis(draw: ImageDraw.ImageDraw, report: RunReport) -> None:
    font = ImageFont.load_default(13)
    for decade in range(DECADES + 1):
        y = _up(1 - decade / DECADES)
        draw.line((LEFT, y, RIGHT, y), fill=FAINT)
        draw.text((LEFT - 8, y), f"{100 / 10**decade:g} %", INK, font, anchor="rm")
    legend = [(FULL, "full"), (PREDICTED, "forecast"), (ERROR, "forecast error at full steps"),
              (BETA, "beta, from -1 to 1")]  # the font that Pillow brings has no β
    if report.expected_errors:
        legend.append((EXPECTED, "as expected"))
    x = LEFT
    for colour, text in legend:
        draw.rectangle((x, 366, x + 12, 378), fill=colour)
        draw.text((x + 18, 372), text, INK, font, anchor="lm")
        x += 40 + int(draw.textlength(text, font))
    draw.text((RIGHT, 372), f"{report.total_steps} steps", INK, font, anchor="rm")


def _height(error: float) -> float:
    """On the logarithmic scale, 0 … 1."""
    return max(0.02, 1 + math.log10(max(error, 10.0**-DECADES)) / DECADES)


def _up(part: float) -> float:
    return ERRORS[1] - min(1.0, max(0.0, part)) * (ERRORS[1] - ERRORS[0])


def _means(rows: Iterable[dict[str, Any]], key: str) -> dict[int, float]:
    """By whole step, over streams and samples."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        values = row[key] if isinstance(row[key], list) else [row[key]]
        found[math.floor(row["step"])].extend(value for value in values if math.isfinite(value))
    return {step: sum(values) / len(values) for step, values in found.items() if values}
