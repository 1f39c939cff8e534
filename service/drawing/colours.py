"""The colours of all that is drawn: Okabe and Ito's palette, "Color Universal Design", 2008.

They differ under red-green blindness as well; still no meaning is told by a colour alone. The tests simulate it.
"""

from __future__ import annotations

PAPER, INK, GRID = "#ffffff", "#222222", "#dddddd"
NEUTRAL = "#8c8c8c"
"""What is not judged: queries, references."""

BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, INK)
"""Lines of one chart, in this order."""

RIGHT, WRONG = BLUE, VERMILION
"""The same person, another person; a tick and a cross stand beside them."""

SCALE = "cividis"
"""Values from low to high: darker to lighter, by matplotlib's name (Nuñez, Anderton and Renslow 2018)."""
