"""Heat maps: numbers as colours in a table, each written in its cell as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from service.drawing.colours import INK, PAPER, SCALE, ink_on

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
        colour = INK if np.isnan(value) else ink_on(colours[row, column])
        place = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, texts[row][column], place, color=colour)
    figure.colorbar(drawn, ax=axes, label=scale_title, fraction=0.05)
