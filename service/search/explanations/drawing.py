"""Two images side by side with lines between the places that correspond.

Drawn at twice the size and halved at the end, which makes lines smooth: all lengths here are those before halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageOps

from service.drawing.colours import INK, PAPER, SERIES, ink_on
from service.drawing.text import font
from service.search.explanations.pairs import Pixel, PlacePair

_HEIGHT, _WIDTH = 1120, 840

_MARGIN, _TITLE, _GAP, _LEGEND = 32, 56, 280, 360
_STEP = 84
"""The match stands so much lower: else lines between equal heights, which most are, would cover each other."""

_LINE, _DOT, _ROW, _TEXT, _NUMBER = 5, 17, 44, 26, 22
_COLUMNS = (72, 200)
"""Where the legend's similarities and additions begin."""

_COLOURS = SERIES[:-1]
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


def draw(
    title: str, query: Side, match: Side, pairs: Sequence[PlacePair], *, weights: tuple[float, float]
) -> Image.Image:
    """RGB: a numbered line for each of `pairs`, and a legend with what each adds, in their order.

    Neighbouring lines differ in colour, so that the eye can follow them; which is which says the number at both ends.
    Places that add little to the score are pale. `weights` are the least and the most that the matcher gives a place.
    """
    left = _Panel(query, _faded(query), _MARGIN, 2 * _TITLE + _MARGIN)
    right = _Panel(match, _faded(match), left.left + left.image.width + _GAP, left.top + _STEP)
    legend = right.left + right.image.width + _MARGIN
    height = max(left.image.height, _STEP + right.image.height, (len(pairs) + 1) * _ROW)
    notes = left.top + height + _MARGIN // 2
    canvas = Image.new("RGB", (legend + _LEGEND, notes + 2 * _ROW), PAPER)
    pencil = ImageDraw.Draw(canvas)
    pencil.text((_MARGIN, _MARGIN), title, INK, font(_TEXT))
    for panel in (left, right):
        canvas.paste(panel.image, (panel.left, panel.top))
        pencil.text((panel.left, panel.top - _TITLE), panel.side.title, INK, font(_TEXT))
    colours = _colours([pair.query[1] for pair in pairs])
    numbered = list(enumerate(zip(pairs, colours, strict=True), 1))
    for number, (pair, colour) in reversed(numbered):  # the first on top
        _draw_line(pencil, left.place(pair.query), right.place(pair.match), number, colour)
    _draw_legend(pencil, (legend, 2 * _TITLE), pairs, colours)
    for line, note in enumerate(_notes(*weights)):
        pencil.text((_MARGIN, notes + line * _ROW), note, INK, font(_NUMBER))
    return canvas.reduce(2)


def _notes(least: float, most: float) -> tuple[str, str]:
    return (
        "adds: to the matcher's score before it is made a probability. Pale: a place that adds little,",
        f"its learned weight ({least:.3f} to {most:.3f}) times the similarity of its best match.",
    )


def _faded(side: Side) -> Image.Image:
    """The image, white over what adds little."""
    image = side.image
    least, most = float(side.heat.min()), float(side.heat.max())
    share = (side.heat - least) / max(most - least, 1e-12)
    strength = Image.fromarray(np.uint8(255 * (1 - _FADED * (1 - share)))).resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(image, Image.new("RGB", image.size, PAPER), strength)


def _colours(heights: Sequence[float]) -> list[str]:
    """Chooses colours by the order of `heights`, so that those beside each other differ."""
    ranks = np.argsort(np.argsort(heights, kind="stable"), kind="stable")
    return [_COLOURS[rank % len(_COLOURS)] for rank in ranks.tolist()]


def _draw_line(pencil: ImageDraw.ImageDraw, start: Pixel, end: Pixel, number: int, colour: str) -> None:
    pencil.line((start, end), colour, _LINE)
    for place in (start, end):
        _draw_number(pencil, place, number, colour)


def _draw_number(pencil: ImageDraw.ImageDraw, place: Pixel, number: int, colour: str) -> None:
    """A disc of the colour with the number in it."""
    pencil.circle(place, _DOT, colour, PAPER, 2)
    ink = ink_on([component / 255 for component in ImageColor.getrgb(colour)])
    pencil.text(place, str(number), ink, font(_NUMBER), anchor="mm")


def _draw_legend(
    pencil: ImageDraw.ImageDraw, corner: tuple[int, int], pairs: Sequence[PlacePair], colours: Sequence[str]
) -> None:
    """The number, similarity and addition of every pair."""
    left, top = corner
    for column, name in zip(_COLUMNS, ("similarity", "adds"), strict=True):
        pencil.text((left + column, top), name, INK, font(_NUMBER), anchor="lm")
    for row, (pair, colour) in enumerate(zip(pairs, colours, strict=True), 1):
        middle = top + row * _ROW
        _draw_number(pencil, (left + _DOT, middle), row, colour)
        for column, value in zip(_COLUMNS, (f"{pair.similarity:.2f}", f"{pair.added:+.3f}"), strict=True):
            pencil.text((left + column, middle), value, INK, font(_TEXT), anchor="lm")
