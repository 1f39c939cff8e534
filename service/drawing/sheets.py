"""Contact sheets: rows of images with what is known of each written below it, as PNG.

Those that are right have a blue frame and a tick beside them, wrong ones an orange frame and a cross.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from reid_core.errors import ImageError
from service.decoding import Decoder
from service.drawing.colours import INK, NEUTRAL, PAPER, RIGHT, WRONG
from service.drawing.text import CROSS, TICK, font, shorten

_IMAGE = (72, 144)
_FRAME, _MARK, _GAP, _MARGIN = 4, 22, 10, 16
_TEXT, _TITLE, _MARK_TEXT = 11, 13, 20
_LINE = 15
_WIDTH = _IMAGE[0] + 2 * _FRAME + _MARK + _GAP
_CHARACTERS = 16
"""Of a line below an image: so many fit."""

_VERDICTS = {None: (NEUTRAL, ""), True: (RIGHT, TICK), False: (WRONG, CROSS)}

LEGEND = f"blue frame and {TICK}: the same person; orange frame and {CROSS}: another one"


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """An image, None where it is gone, with the lines below it; `right` is None where nothing is judged."""

    image: Image.Image | None
    lines: Sequence[str]
    right: bool | None = None


def draw_sheet(title: Sequence[str], rows: Sequence[Sequence[Tile]]) -> bytes:
    """A PNG with the title's lines above the rows; the first tile of a row stands a little apart."""
    lines = max((len(tile.lines) for row in rows for tile in row), default=0)
    row_height = _IMAGE[1] + 2 * _FRAME + lines * _LINE + _GAP
    top = _MARGIN + len(title) * (_LINE + 4) + _GAP
    columns = max(map(len, rows), default=0)
    longest = max(font(_TITLE).getlength(line) for line in title)
    width = max(columns * _WIDTH + _GAP, int(longest)) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, top + len(rows) * row_height + _MARGIN), PAPER)
    pencil = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        pencil.text((_MARGIN, _MARGIN + number * (_LINE + 4)), line, INK, font(_TITLE))
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            left = _MARGIN + column * _WIDTH + (_GAP if column else 0)
            _paste(sheet, pencil, tile, left, top + number * row_height)
    return as_png(sheet)


def as_png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def open_tile(decoder: Decoder, source: bytes | Path) -> Image.Image | None:
    """The image in the size of a tile; None where its file is gone or cannot be read."""
    try:
        with decoder.opened(source) as decoded:
            return fitted(decoded.image)
    except ImageError:
        return None


def fitted(image: Image.Image) -> Image.Image:
    """The image in the size of a tile, whole, with paper where it is narrower or flatter."""
    return ImageOps.pad(image.convert("RGB"), _IMAGE, color=PAPER)


def _paste(sheet: Image.Image, pencil: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    colour, mark = _VERDICTS[tile.right]
    right, bottom = left + _IMAGE[0] + 2 * _FRAME, top + _IMAGE[1] + 2 * _FRAME
    pencil.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    if tile.image is None:
        pencil.rectangle((left + _FRAME, top + _FRAME, right - _FRAME - 1, bottom - _FRAME - 1), fill=PAPER)
        pencil.text((left + _FRAME + 6, top + _IMAGE[1] // 2), "no image", INK, font(_TEXT))
    else:
        sheet.paste(tile.image, (left + _FRAME, top + _FRAME))
    pencil.text((right + 4, top), mark, colour, font(_MARK_TEXT), stroke_width=1)
    for number, line in enumerate(tile.lines):
        pencil.text((left, bottom + 2 + number * _LINE), shorten(line, _CHARACTERS), INK, font(_TEXT))
