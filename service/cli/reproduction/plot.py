"""Lines over axes, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.drawing.charts import Chart, label_axes
from service.drawing.colours import SERIES
from service.drawing.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[Sequence[float]]
"""Pairs of x and y."""

_WIDTH, _HEIGHT, _LEGEND_ROW = 5.6, 3.6, 0.2
_MARKS, _DASHES = ("o", "s", "D", "^", "v", "P", "X"), ("-", "--", ":")
_TICKS = 10
_MARKED_POINTS = 30
_NAME_LENGTH = 70


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines by their names, over one pair of axes; `title` names the y axis."""

    title: str
    x_title: str
    lines: Mapping[str, Points]
    log_x: bool = False


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """A PNG with the panels side by side, two in a row, each with its legend below it."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend = _LEGEND_ROW * max(len(panel.lines) for panel in panels)

    def paint(figure: Figure) -> None:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, panel in zip(places, panels, strict=False):
            _paint(axes, panel)
        for axes in places[len(panels) :]:
            axes.set_axis_off()

    path.write_bytes(Chart(paint, _WIDTH * columns, (_HEIGHT + legend) * rows).render("png"))


def _paint(axes: Axes, panel: Panel) -> None:
    label_axes(axes, panel.x_title, panel.title)
    if panel.log_x:
        axes.set_xscale("log", base=2)
    for number, (name, points) in enumerate(panel.lines.items()):
        colour, mark, dash = style(number)
        every = 1 if len(points) <= _MARKED_POINTS else len(points) // 8
        xs, ys = [x for x, _ in points], [y for _, y in points]
        (line,) = axes.plot(xs, ys, dash, color=colour, marker=mark, markersize=5, markevery=every)
        line.set_label(shorten(name, _NAME_LENGTH))
    values = sorted({x for line in panel.lines.values() for x, _ in line})
    if len(values) <= _TICKS:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=8)


def style(number: int) -> tuple[str, str, str]:
    """Colour, mark and dash of the line of that number, from 0; the first seven differ in mark as well as in colour."""
    place = number % len(SERIES)
    return SERIES[place], _MARKS[place], _DASHES[number // len(SERIES) % len(_DASHES)]
