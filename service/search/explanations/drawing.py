"""Two images side by side with lines between the places that correspond.

Drawn at twice the size and halved at the end, which makes lines smooth: all lengths here are those before halving.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from service.search.explanations.pairs import Pixel, PlacePair

_HEIGHT, _WIDTH = 1120, 840

_MARGIN, _TITLE, _GAP, _LEGEND = 32, 56, 280, 200
_STEP = 84
"""The match stands so much lower: else lines between equal heights, which most are, would cover each other."""

_LINE, _DOT, _ROW, _TEXT = 4, 9, 44, 28
_PAPER, _INK = "#ffffff", "#222222"

_FADED = 0.6
"""The share of white over a place that adds nothing to the score."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """An image as `fitted` gives it, its title, and how much each of its places adds to the score: (h, w).

    `size` is the width and height in pixels that the image had.
    """

    title: str
    image: Image.Image
    size: tuple[int, int]
    heat: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """A side as it is drawn, at (left, top)."""

    side: Side
    image: Image.Image
    left: int
    top: int

    def place(self, pixel: Pixel) -> Pixel:
        """The place in the drawing of a pixel of the image."""
        across, down = self.image.width / self.side.size[0], self.image.height / self.side.size[1]
        return self.left + pixel[0] * across, self.top + pixel[1] * down


def fitted(image: Image.Image) -> Image.Image:
    """The image enlarged or reduced to the size in which it is drawn."""
    return ImageOps.contain(image, (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)


def draw(query: Side, match: Side, pairs: Sequence[PlacePair]) -> Image.Image:
    """RGB: a colour for each of `pairs`, dots at both ends, and a column with their similarities.

    Colours go from red to violet with the height in the query; places that add little to the score are faded.
    """
    left = _Panel(query, _faded(query), _MARGIN, _TITLE + _MARGIN)
    right = _Panel(match, _faded(match), left.left + left.image.width + _GAP, left.top + _STEP)
    legend = right.left + right.image.width + _MARGIN
    height = max(left.image.height, _STEP + right.image.height, len(pairs) * _ROW)
    canvas = Image.new("RGB", (legend + _LEGEND, height + _TITLE + 2 * _MARGIN), _PAPER)
    pencil = ImageDraw.Draw(canvas)
    for panel in (left, right):
        canvas.paste(panel.image, (panel.left, panel.top))
        pencil.text((panel.left, panel.top - _TITLE), panel.side.title, _INK, ImageFont.load_default(_TEXT))
    colours = _colours([pair.query[1] for pair in pairs])
    for pair, colour in reversed(list(zip(pairs, colours, strict=True))):  # the first on top
        _draw_line(pencil, left.place(pair.query), right.place(pair.match), colour)
    _draw_legend(pencil, (legend, _TITLE + _MARGIN), pairs, colours)
    return canvas.reduce(2)


def _faded(side: Side) -> Image.Image:
    """The image, white over what adds little."""
    image = side.image
    least, most = float(side.heat.min()), float(side.heat.max())
    share = (side.heat - least) / max(most - least, 1e-12)
    strength = Image.fromarray(np.uint8(255 * (1 - _FADED * (1 - share)))).resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(image, Image.new("RGB", image.size, _PAPER), strength)


def _colours(heights: Sequence[float]) -> list[tuple[int, int, int]]:
    """Chooses colours that differ as much as they can, in the order of `heights`."""
    ranks = np.argsort(np.argsort(heights, kind="stable"), kind="stable")
    hues = [0.83 * rank / max(len(heights) - 1, 1) for rank in ranks.tolist()]
    # Every other one darker: neighbouring hues are hard to tell apart.
    shades = [(1.0, 0.62) if rank % 2 else (0.9, 0.95) for rank in ranks.tolist()]
    rgb = [colorsys.hsv_to_rgb(hue, *shade) for hue, shade in zip(hues, shades, strict=True)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in rgb]


def _draw_line(pencil: ImageDraw.ImageDraw, start: Pixel, end: Pixel, colour: tuple[int, int, int]) -> None:
    pencil.line((start, end), colour, _LINE)
    for place in (start, end):
        pencil.circle(place, _DOT, colour, _PAPER, 2)


def _draw_legend(
    pencil: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    pairs: Sequence[PlacePair],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """The similarity of every pair."""
    font = ImageFont.load_default(_TEXT)
    pencil.text((corner[0], _MARGIN), "similarity", _INK, font)
    for row, (pair, colour) in enumerate(zip(pairs, colours, strict=True)):
        middle = corner[1] + row * _ROW + _ROW // 2
        pencil.line((corner[0], middle, corner[0] + 40, middle), colour, 2 * _LINE)
        pencil.text((corner[0] + 56, middle), f"{pair.similarity:.2f}", _INK, font, anchor="lm")
