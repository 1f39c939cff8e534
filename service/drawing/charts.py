"""Charts: figures of matplotlib as PNG or SVG.

matplotlib is imported when the first one is asked for, and without pyplot, which keeps figures and opens windows.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from service.drawing.colours import GRID, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

ChartFormat = Literal["png", "svg"]

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",  # where an SVG is looked at without the font
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "text.parse_math": False,  # names of models may hold dollar signs
    "svg.fonttype": "none",  # text stays text: it can be read out, searched and scaled
    "svg.hashsalt": "reid",  # the same numbers give the same bytes, and so the same ETag
}
_DOTS_PER_INCH = 144

_TURN = threading.Lock()
"""matplotlib's settings belong to the whole process, so that one drawing is made at a time."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart to be drawn: `paint` fills a figure of `width` x `height` inches."""

    paint: Callable[[Figure], None]
    width: float
    height: float

    def render(self, format: ChartFormat) -> bytes:
        """The file; PNGs have 144 dots an inch.

        Nothing on this machine changes it: neither its fonts nor settings of matplotlib that lie there.
        """
        import matplotlib
        from matplotlib.figure import Figure

        content = io.BytesIO()
        with _TURN, matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            self.paint(figure)
            metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
            figure.savefig(content, format=format, dpi=_DOTS_PER_INCH, metadata=metadata)
        return content.getvalue()


def entitle(figure: Figure, *lines: str) -> None:
    """Writes the figure's title, line by line."""
    figure.suptitle("\n".join(lines), x=0.01, ha="left", linespacing=1.4)


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Names both axes, with their units, and draws a grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True)
    axes.spines[["top", "right"]].set_visible(False)
