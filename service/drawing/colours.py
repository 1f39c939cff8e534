"""The colours of all that is drawn: Okabe and Ito's palette, "Color Universal Design", 2008.

They differ under red-green blindness as well; still no meaning is told by a colour alone. The tests simulate it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

PAPER, INK, GRID = "#ffffff", "#222222", "#dddddd"
NEUTRAL = "#8c8c8c"
"""The colour of images that are not judged: queries, references."""

BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, INK)
"""Lines of one chart, in this order."""

RIGHT, WRONG = BLUE, VERMILION
"""The same person, another person; a tick and a cross stand beside them."""

SCALE = "cividis"
"""Values from low to high: darker to lighter, by matplotlib's name (Nuñez, Anderton and Renslow 2018)."""

_MIDDLE = 0.18
"""White and black contrast equally with a grey of this luminance (WCAG 2.2: (1.05 * 0.05) ** 0.5 - 0.05)."""


def ink_on(colour: ArrayLike) -> str:
    """INK or PAPER, which of them can be read on the colour; its sRGB components are from 0 to 1."""
    return INK if luminance(colour) > _MIDDLE else PAPER


def luminance(colour: ArrayLike) -> float:
    """The relative luminance of sRGB components from 0 to 1, as WCAG 2.2 defines it: 0 black, 1 white."""
    components = np.asarray(colour, np.float64)[:3]
    linear = np.where(components <= 0.04045, components / 12.92, ((components + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
