"""A contact sheet: queries on the left, what came back beside them, right ones framed green and wrong ones red."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_TILE = (64, 128)
_FRAME = 4
_GAP = 8
_CAPTION = 14
_RIGHT, _WRONG, _NEUTRAL, _PAPER, _INK = "#1a9641", "#d7191c", "#8c8c8c", "#ffffff", "#222222"


@dataclass(frozen=True, slots=True)
class Cell:
    """One image with its caption; `right` is None for a query."""

    image: bytes
    caption: str
    right: bool | None


def write_contact_sheet(rows: Sequence[Sequence[Cell]], path: Path) -> None:
    """A PNG with one row per query, the query first."""
    columns = max(len(row) for row in rows)
    cell_width, cell_height = _TILE[0] + 2 * _FRAME + _GAP, _TILE[1] + 2 * _FRAME + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * cell_width + 2 * _GAP, len(rows) * cell_height + _GAP), _PAPER)
    for row_number, row in enumerate(rows):
        for column, cell in enumerate(row):
            left = _GAP + column * cell_width + (_GAP if column else 0)
            _paste(sheet, cell, left, _GAP + row_number * cell_height)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _paste(sheet: Image.Image, cell: Cell, left: int, top: int) -> None:
    colour = {None: _NEUTRAL, True: _RIGHT, False: _WRONG}[cell.right]
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + _TILE[0] + 2 * _FRAME - 1, top + _TILE[1] + 2 * _FRAME - 1), fill=colour)
    with Image.open(io.BytesIO(cell.image)) as image:
        sheet.paste(image.convert("RGB").resize(_TILE), (left + _FRAME, top + _FRAME))
    draw.text((left, top + _TILE[1] + 2 * _FRAME + 1), cell.caption, fill=_INK, font=ImageFont.load_default(10))
