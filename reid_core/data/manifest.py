"""A data set as a table: one CSV or Parquet row per picture, so that no folder has to be renamed to register it.

Columns `path`, `identity`, `split`; optional `camera`, `captured_at`, `frame`; others are ignored and reported.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from reid_core.data.contents import Gathered
from reid_core.data.listing import fence, real_path
from reid_core.data.records import SPLITS, Picture, Split
from reid_core.errors import DatasetError

REQUIRED = ("path", "identity", "split")
OPTIONAL = ("camera", "captured_at", "frame")

_EMPTY = frozenset({"", "nan", "NaN"})
"""What an empty cell becomes on its way through pandas. Taken for a name, it would join all unknown people into one."""

_LARGEST_FRAME = 2**62


def find_manifests(folder: Path) -> list[Path]:
    """`manifest.csv`, `manifest.parquet` and every other Parquet file of the folder that has the required columns."""
    named = [path for path in (folder / "manifest.csv", folder / "manifest.parquet") if path.is_file()]
    others = [path for path in sorted(folder.glob("[!.]*.parquet")) if path not in named and path.is_file()]
    return named + [path for path in others if _is_manifest(path)]


def read_manifest(file: Path, boundary: Path, junk: frozenset[str]) -> Gathered:
    """The pictures that the table lists, in its order; paths are relative to the table.

    Rows whose path leaves the boundary, whose identity is missing or whose identity is junk are skipped and counted.

    Raises:
        DatasetError: not UTF-8, no table, a column is missing, or a split, time or frame cannot be understood.
    """
    header, rows = _open_parquet(file) if file.suffix.lower() == ".parquet" else _open_csv(file)
    columns = _normal(header)
    _check_columns(columns, file.name)
    gathered = Gathered()
    gathered.skip("unused-columns", [name for name in columns if name not in REQUIRED + OPTIONAL])
    stays_inside = fence(boundary)
    for number, values in enumerate(rows, start=1):
        where = f"{file.name}, row {number}"
        row = _row(columns, values, where)
        picture = _picture(row, file.parent, where)
        if not (row["path"] and row["identity"]):
            gathered.skip("incomplete-rows", [f"row {number}: {row['path'] or 'no path'}"])
        elif not stays_inside(picture.path):
            gathered.skip("escaping-links", [f"row {number}: {row['path']}"])
        elif picture.identity in junk:
            gathered.skip("junk-dropped", [row["path"]])
        else:
            gathered.pictures[_split(row["split"], where)].append(picture)
    return gathered


def _open_csv(file: Path) -> tuple[list[str], Iterator[list[str]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{file.name} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}.",
            hint="Save it as CSV UTF-8 (comma separated).",
        ) from error
    rows = _csv_rows(text, file.name)
    return next(rows, []), rows


def _csv_rows(text: str, name: str) -> Iterator[list[str]]:
    """The rows that hold anything, header first."""
    table = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from (values for values in table if any(values))
    except csv.Error as error:
        raise DatasetError(f"{name}, line {table.line_num}: {error}.", hint="Check its quotation marks.") from error


def _open_parquet(file: Path) -> tuple[list[str], Iterator[list[str]]]:
    names = _parquet_columns(file)
    return names, _parquet_rows(file, names)


def _parquet_rows(file: Path, names: list[str]) -> Iterator[list[str]]:
    """The rows as text, as a CSV would give them; columns that nobody asked for stay unread and empty."""
    known = [name for name in names if name.strip().lower() in REQUIRED + OPTIONAL]
    with _parquet_errors(file):
        table = pq.ParquetFile(file).read(columns=known)
        texts = {name: table.column(name).cast(pa.string()).to_pylist() for name in known}
    columns = [texts.get(name, repeat(None, table.num_rows)) for name in names]
    yield from ([value or "" for value in row] for row in zip(*columns, strict=True))


def _parquet_columns(file: Path) -> list[str]:
    with _parquet_errors(file):
        return cast(list[str], pq.read_schema(file).names)


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{file.name} cannot be read as Parquet: {error}.", hint="Write plain columns of text, numbers or times."
        ) from error


def _is_manifest(file: Path) -> bool:
    try:
        return set(REQUIRED) <= set(_normal(_parquet_columns(file)))
    except DatasetError:
        return False


def _normal(header: list[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _check_columns(columns: list[str], name: str) -> None:
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise DatasetError(
            f"{name} has no column {', '.join(missing)}; its first line gives {', '.join(columns)[:200] or 'nothing'}.",
            hint=f"The first line names the columns, separated by commas: {', '.join(REQUIRED + OPTIONAL)}. "
            "If the file is something else, register the data set under the name of its format.",
        )
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{name} names a column twice: {', '.join(columns)[:200]}.", hint="Name each column once.")


def _row(columns: list[str], values: list[str], where: str) -> dict[str, str]:
    """Every known column as text, "" where nothing is known."""
    if len(values) != len(columns):
        raise DatasetError(
            f"{where} has {len(values)} fields, the first line {len(columns)}.",
            hint='Put values that hold a comma between quotation marks: "a, b".',
        )
    known = dict.fromkeys(REQUIRED + OPTIONAL, "")
    for column, value in zip(columns, values, strict=True):
        if column in known and value.strip() not in _EMPTY:
            known[column] = value.strip()
    if any("\0" in value for value in known.values()):
        raise DatasetError(f"{where} holds a NUL character.", hint="Save the table as plain text.")
    return known


def _picture(row: dict[str, str], folder: Path, where: str) -> Picture:
    # Tables written on Windows separate folders by backslashes.
    path = folder / row["path"].replace("\\", "/")
    return Picture(
        path=real_path(path) if ".." in path.parts else path,
        identity=row["identity"],
        camera=row["camera"],
        captured_at=_time(row["captured_at"], where),
        frame=_frame(row["frame"], where),
    )


def _split(value: str, where: str) -> Split:
    if value.lower() not in SPLITS:
        raise DatasetError(f"{where} has the split '{value}'.", hint=f"Splits are {', '.join(SPLITS)}.")
    return cast(Split, value.lower())


def _time(value: str, where: str) -> datetime | None:
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise DatasetError(
            f"{where} has the time '{value}'.", hint="Write times as 2024-05-01T13:45:00Z, or leave captured_at empty."
        ) from error


def _frame(value: str, where: str) -> int | None:
    if not value:
        return None
    try:
        # Columns with gaps come out of pandas as 12.0.
        frame = int(value.removesuffix(".0"))
    except ValueError:
        frame = -1
    if not 0 <= frame < _LARGEST_FRAME:
        raise DatasetError(f"{where} has the frame '{value}'.", hint="Frames are whole numbers from 0, or left empty.")
    return frame
