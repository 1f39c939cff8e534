"""Heat maps: numbers as colours in a table, each written in its cell as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.drawing.colours import INK, PAPER, SCALE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def paint_heat_map(
    figure: Figure,
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    scale_title: str,
    ends: tuple[float, float],
) -> None:
    """Fills the figure with (rows, columns) `values`, NaN where there is none, and a scale from `ends[0]` to `ends[1]`.

    Larger is lighter. Text is white on dark cells and black on light ones.
    """
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap=SCALE, vmin=ends[0], vmax=ends[1], aspect="auto")
    axes.set_facecolor(PAPER)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.set_xlabel(column_title)
    axes.set_ylabel(row_title)
    colours = drawn.to_rgba(values)  # (rows, columns, 4)
    for (row, column), value in np.ndenumerate(values):
        light = np.isnan(value) or luminance(colours[row, column]) > _MIDDLE
        place = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, texts[row][column], place, color=INK if light else PAPER)
    figure.colorbar(drawn, ax=axes, label=scale_title, fraction=0.05)


_MIDDLE = 0.18
"""White and black contrast equally with a grey of this luminance (WCAG 2.2: (1.05 / 0.05) ** 0.5 * 0.05 - 0.05)."""


def luminance(colour: ArrayLike) -> float:
    """The relative luminance of sRGB components from 0 to 1, as WCAG 2.2 defines it: 0 black, 1 white."""
    components = np.asarray(colour, np.float64)[:3]
    linear = np.where(components <= 0.04045, components / 12.92, ((components + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
