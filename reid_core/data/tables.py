"""CSV and Parquet files as rows of text, whoever wrote them: Excel with semicolons, pandas, a database."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from reid_core.errors import DatasetError

_SEPARATORS = ",;\t|"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class Table:
    """Column names in lower case and without blanks around them, and the rows that hold anything as text."""

    columns: tuple[str, ...]
    rows: Iterator[list[str]]


def open_table(file: Path, encoding: str = "", *, wanted: Collection[str] | None = None) -> Table:
    """The table; of a Parquet file only the `wanted` columns have values.

    `encoding` is that of a CSV file, UTF-8 or what its first bytes say where it is "". The character that separates
    columns is found out from the first line.

    Raises:
        DatasetError: it cannot be read as text, or as Parquet.
    """
    header, rows = _open_parquet(file, wanted) if file.suffix.lower() == ".parquet" else _open_csv(file, encoding)
    return Table(tuple(name.strip().lower() for name in header), rows)


def _open_csv(file: Path, encoding: str) -> tuple[list[str], Iterator[list[str]]]:
    content = file.read_bytes()
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "")
    encoding = encoding or marked or "utf-8"
    try:
        text = content.decode(marked if encoding.lower().replace("_", "-") == "utf-8" and marked else encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{file.name} is not {encoding.upper()}: byte {error.start} is {error.object[error.start]:#04x}.",
            hint="Save it as CSV UTF-8, or say when registering how it is encoded: `encoding`, e.g. cp1252 (Western "
            "Windows), cp932 (Japanese), gbk (Chinese).",
        ) from error
    rows = _csv_rows(text, file.name)
    return next(rows, []), rows


def _csv_rows(text: str, name: str) -> Iterator[list[str]]:
    """The rows that hold anything, header first."""
    first_line = text.lstrip("\r\n").partition("\n")[0]
    separator = max(_SEPARATORS, key=first_line.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        yield from (values for values in table if any(values))
    except csv.Error as error:
        raise DatasetError(f"{name}, line {table.line_num}: {error}.", hint="Check its quotation marks.") from error


def _open_parquet(file: Path, wanted: Collection[str] | None) -> tuple[list[str], Iterator[list[str]]]:
    with _parquet_errors(file):
        names = cast(list[str], pq.read_schema(file).names)
    return names, _parquet_rows(file, names, wanted)


def _parquet_rows(file: Path, names: list[str], wanted: Collection[str] | None) -> Iterator[list[str]]:
    """The rows as text, as a CSV would give them; columns that nobody asked for stay unread and empty."""
    known = [name for name in names if wanted is None or name.strip().lower() in wanted]
    with _parquet_errors(file):
        table = pq.ParquetFile(file).read(columns=known)
        texts = {name: table.column(name).cast(pa.string()).to_pylist() for name in known}
    columns = [texts.get(name, repeat(None, table.num_rows)) for name in names]
    yield from ([value or "" for value in row] for row in zip(*columns, strict=True))


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{file.name} cannot be read as Parquet: {error}.", hint="Write plain columns of text, numbers or times."
        ) from error
