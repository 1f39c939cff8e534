"""Lines over axes, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Points = Sequence[Sequence[float]]
"""Pairs of x and y."""

_WIDTH, _HEIGHT = 620, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 48
_LEGEND_ROW = 18
_SCALE = 2
"""Everything is drawn this much larger than it is meant to be seen."""

_PAPER, _INK, _GRID = "#ffffff", "#222222", "#dddddd"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666")
"""Okabe and Ito's, which people of all kinds of colour vision can tell apart."""

_MARKS = ("circle", "square", "diamond")
_TICKS = 5
_ROUNDING = 1e-9
_MARKED_POINTS = 30


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines by their names, over one pair of axes."""

    title: str
    x_title: str
    lines: Mapping[str, Points]
    log_x: bool = False


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """A PNG with the panels side by side, two in a row, each with its legend below it."""
    legend = _LEGEND_ROW * max(len(panel.lines) for panel in panels) + 10
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    sheet = Image.new("RGB", (columns * _WIDTH * _SCALE, rows * (_HEIGHT + legend) * _SCALE), _PAPER)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        _Drawing(sheet, column * _WIDTH, row * (_HEIGHT + legend), panel).draw()
    sheet.save(path)


class _Drawing:
    """One panel with its upper left corner at a place of the sheet."""

    def __init__(self, sheet: Image.Image, left: int, top: int, panel: Panel) -> None:
        self._draw = ImageDraw.Draw(sheet)
        self._corner, self._panel = (left, top), panel
        points = [point for line in panel.lines.values() for point in line]
        self._xs = _widened([self._position(x) for x, _ in points])
        self._ys = _rounded([y for _, y in points])

    def draw(self) -> None:
        self._text((_LEFT, 12), self._panel.title, 14)
        self._draw_axes()
        for number, (name, points) in enumerate(self._panel.lines.items()):
            colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number // len(_COLOURS) % len(_MARKS)]
            places = [self._place(x, y) for x, y in points]
            self._draw.line([self._at(place) for place in places], fill=colour, width=2 * _SCALE, joint="curve")
            for place in places if len(places) <= _MARKED_POINTS else places[:: len(places) // 8]:
                self._mark(place, mark, colour)
            self._legend(number, name, mark, colour)

    def _draw_axes(self) -> None:
        left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
        for y in _round_values(*self._ys):
            height = self._place(0, y, raw=True)[1]
            self._line((left, height), (right, height), _GRID)
            self._text((left - 8, height), _short(y), 11, "rm")
        for x in self._x_ticks():
            across = self._place(x, self._ys[0])[0]
            self._line((across, bottom), (across, bottom + 4), _INK)
            self._text((across, bottom + 14), _short(x), 11, "mm")
        self._line((left, bottom), (right, bottom), _INK)
        self._line((left, top), (left, bottom), _INK)
        self._text(((left + right) / 2, bottom + 34), self._panel.x_title, 12, "mm")

    def _x_ticks(self) -> Sequence[float]:
        """Every value where there are few, else round ones."""
        values = sorted({x for line in self._panel.lines.values() for x, _ in line})
        return values if len(values) <= 2 * _TICKS else _round_values(values[0], values[-1])

    def _legend(self, number: int, name: str, mark: str, colour: str) -> None:
        top = _HEIGHT + _LEGEND_ROW * number
        self._line((_LEFT, top), (_LEFT + 26, top), colour, 2)
        self._mark((_LEFT + 13, top), mark, colour)
        self._text((_LEFT + 34, top), name, 11, "lm")

    def _position(self, x: float) -> float:
        return math.log2(x) if self._panel.log_x else x

    def _place(self, x: float, y: float, *, raw: bool = False) -> tuple[float, float]:
        """Pixels from the panel's corner; `raw` where x has no meaning."""
        (x_low, x_high), (y_low, y_high) = self._xs, self._ys
        share = 0 if raw else (self._position(x) - x_low) / (x_high - x_low)
        across = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def _at(self, place: tuple[float, float]) -> tuple[float, float]:
        return (self._corner[0] + place[0]) * _SCALE, (self._corner[1] + place[1]) * _SCALE

    def _line(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: int = 1) -> None:
        self._draw.line([self._at(start), self._at(end)], fill=colour, width=width * _SCALE)

    def _text(self, place: tuple[float, float], text: str, size: int, anchor: str = "lm") -> None:
        self._draw.text(self._at(place), text, fill=_INK, font=ImageFont.load_default(size * _SCALE), anchor=anchor)

    def _mark(self, place: tuple[float, float], mark: str, colour: str) -> None:
        x, y = self._at(place)
        size = 4 * _SCALE
        if mark == "circle":
            self._draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        elif mark == "square":
            self._draw.rectangle((x - size, y - size, x + size, y + size), fill=colour)
        else:
            self._draw.polygon([(x, y - size), (x + size, y), (x, y + size), (x - size, y)], fill=colour)


def _widened(values: Sequence[float]) -> tuple[float, float]:
    """Their range with a little room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) / 20 or 0.5
    return low - room, high + room


def _rounded(values: Sequence[float]) -> tuple[float, float]:
    """Their range, out to round numbers."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low) / 10 - 0.1, high + abs(high) / 10 + 0.1
    for _ in range(2):  # the step of the wider range may be a larger one
        step = _step(low, high)
        low, high = math.floor(low / step + _ROUNDING) * step, math.ceil(high / step - _ROUNDING) * step
    return low, high


def _round_values(low: float, high: float) -> list[float]:
    """Multiples of a round number, from the first that is not below `low` to the last that is not above `high`."""
    step = _step(low, high)
    first, last = math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING)
    return [number * step for number in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides the range into few parts."""
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS >= (high - low) * (1 - _ROUNDING))


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
