"""Text in drawings: names cut to the room that there is, in the one font that matplotlib brings along."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

TICK, CROSS = "\u2713", "\u2717"


def shorten(name: str, most: int) -> str:
    """At most so many characters of a name, the middle left out; what the font lacks is written as Python does."""
    shown = "".join(sign if ord(sign) in _signs() else _escape(sign) for sign in name)
    if len(shown) <= most:
        return shown
    tail = (most - 1) // 3
    return f"{shown[: most - 1 - tail]}…{shown[len(shown) - tail :]}"


@lru_cache(16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in pixels, for Pillow."""
    return ImageFont.truetype(_font_file(), size)


def _escape(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if ord(sign) > 126 else f"\\x{ord(sign):02x}"


@lru_cache(1)
def _signs() -> frozenset[int]:
    """The characters that the font has and that take room of their own."""
    from matplotlib.ft2font import FT2Font

    return frozenset(code for code in FT2Font(str(_font_file())).get_charmap() if chr(code).isprintable())


def _font_file() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
