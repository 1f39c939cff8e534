"""A data set as a table: one CSV or Parquet row per image, so that no folder has to be renamed to register it.

Columns `path`, `identity`, `split`; optional `camera`, `captured_at`, `frame`; others are ignored and reported. A table
of open-metric-learning has its own (`OML_COLUMNS`), and a declaration may give any other names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from reid_core.data.contents import Gathered, Skipped
from reid_core.data.declaration import TABLE_SUFFIXES, Declaration
from reid_core.data.labels import JUNK, UNKNOWN_WORDS, label_fault, normal_label
from reid_core.data.listing import fence, locator, printable, real_path
from reid_core.data.records import SPLITS, ImageRecord, Split
from reid_core.data.tables import Table, open_table
from reid_core.errors import DatasetError

REQUIRED = ("path", "identity", "split")
OPTIONAL = ("camera", "captured_at", "frame")
COLUMNS = REQUIRED + OPTIONAL

OML_COLUMNS = ("label", "path", "split", "is_query", "is_gallery")

_OML_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "validation"}
_TRUE = frozenset({"true", "1", "1.0", "yes"})
_LARGEST_FRAME = 2**62


def find_manifests(folder: Path, declaration: Declaration) -> list[Path]:
    """`manifest.csv`, `manifest.parquet`, and every other Parquet file of the folder that has the required columns.

    Where columns are declared, or text is said to be encoded in some way, CSV files with those columns, too.
    """
    named = [path for path in (folder / "manifest.csv", folder / "manifest.parquet") if path.is_file()]
    suffixes = TABLE_SUFFIXES if declaration.columns else (".parquet",)
    return named + [path for path in _tables(folder, suffixes) if path not in named and _is_manifest(path, declaration)]


def find_oml_tables(folder: Path, declaration: Declaration) -> list[Path]:
    """The tables of the folder that have the columns of open-metric-learning."""
    return [path for path in _tables(folder, TABLE_SUFFIXES) if is_oml_table(path, declaration)]


def is_oml_table(file: Path, declaration: Declaration) -> bool:
    """True for a table with the columns of open-metric-learning, unless other columns are declared."""
    return not declaration.columns and set(OML_COLUMNS) <= set(_columns_of(file, declaration.encoding))


def read_dataset_manifest(file: Path, boundary: Path, declaration: Declaration) -> Gathered:
    """The images that the table lists, in its order; paths are relative to the table.

    Rows whose path leaves the boundary, whose identity is missing or whose identity is junk are skipped and counted.

    Raises:
        DatasetError: not text, no table, a column is missing, or a split, time or frame cannot be understood.
    """
    table = open_table(file, declaration.encoding, wanted={*COLUMNS, *map(_plain, declaration.columns.values())})
    columns = _our_columns(table.columns, declaration.columns)
    _check_columns(columns, table.columns, declaration.columns, file.name)
    reading = _Reading(file, boundary, columns, table)
    for number, values in enumerate(table.rows, start=1):
        row = reading.row(number, values)
        if image := reading.image(row):
            reading.gathered.images[_split(row["split"], reading.where)].append(image)
    return reading.finish()


def read_oml_table(file: Path, boundary: Path, declaration: Declaration) -> Gathered:
    """The images that a table of open-metric-learning lists: of its validation rows the queries and the gallery.

    Of rows that are both, the first of each identity is a query and the others are gallery.
    """
    table = open_table(file, declaration.encoding, wanted=set(OML_COLUMNS))
    names = {"label": "identity", "path": "path", "split": "split"} | {
        name: name for name in ("is_query", "is_gallery")
    }
    reading = _Reading(file, boundary, [names.get(column, "") for column in table.columns], table)
    asked: set[str] = set()
    for number, values in enumerate(table.rows, start=1):
        row = reading.row(number, values)
        image = reading.image(row)
        if image is None:
            continue
        split = _oml_split(row, reading.where, first=image.identity not in asked)
        if split is None:
            reading.gathered.skip("left-out", [row["path"]])
            continue
        if split == "query":
            asked.add(image.identity)
        reading.gathered.images[split].append(image)
    return reading.finish()


class _Reading:
    """One pass over a table: rows to images, and a count of what was passed over."""

    def __init__(self, file: Path, boundary: Path, columns: Sequence[str], table: Table) -> None:
        self.gathered = Gathered()
        self.where = file.name
        self._file, self._columns = file, columns
        self._stays_inside, self._locate = fence(boundary), locator(file.parent)
        self._unknown: Counter[tuple[str, str]] = Counter()
        unused = [name for name, ours in zip(table.columns, columns, strict=True) if not ours]
        self.gathered.skip("unused-columns", [printable(name) for name in unused])

    def row(self, number: int, values: Sequence[str]) -> dict[str, str]:
        """Every column that we know as text, "" where nothing is known."""
        self.where = f"{self._file.name}, row {number}"
        if len(values) != len(self._columns):
            raise DatasetError(
                f"{self.where} has {len(values)} fields, the first line {len(self._columns)}.",
                hint='Put values that hold a comma between quotation marks: "a, b".',
            )
        known = dict.fromkeys((*COLUMNS, "is_query", "is_gallery"), "")
        for column, value in zip(self._columns, values, strict=True):
            if not column:
                continue
            text = value.strip()
            if "\0" in text:
                raise DatasetError(f"{self.where} holds a NUL character.", hint="Save the table as plain text.")
            if text not in UNKNOWN_WORDS or column == "path":
                known[column] = text
            elif text:
                self._unknown[column, text] += 1
        return known

    def image(self, row: Mapping[str, str]) -> ImageRecord | None:
        """The row's image; None where it was counted as passed over."""
        # Tables written on Windows separate folders by backslashes.
        path = self._locate(row["path"].replace("\\", "/"))
        image = ImageRecord(
            path=real_path(path) if ".." in path.parts else path,
            identity=normal_label(row["identity"]),
            camera=normal_label(row["camera"]),
            captured_at=_time(row["captured_at"], self.where),
            frame=_frame(row["frame"], self.where),
        )
        number = self.where.rpartition(" ")[2]
        if not (row["path"] and image.identity):
            self.gathered.skip("incomplete-rows", [f"row {number}: {printable(row['path']) or 'no path'}"])
        elif not self._stays_inside(image.path):
            self.gathered.skip("escaping-links", [f"row {number}: {row['path']}"])
        elif image.identity == JUNK:
            self.gathered.skip("junk-dropped", [row["path"]])
        elif fault := label_fault(image.identity) or (image.camera and label_fault(image.camera)):
            self.gathered.skip("refused-labels", [f"row {number}: {fault}"])
        else:
            return image
        return None

    def finish(self) -> Gathered:
        """Returns the rows gathered, with the words that were taken for unknown."""
        if self._unknown:
            samples = tuple(
                f"{word} as {column}: {count} times" for (column, word), count in sorted(self._unknown.items())
            )
            self.gathered.counted["unknown-words"] = Skipped(self._unknown.total(), samples)
        return self.gathered


def _tables(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    found = [path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in suffixes]
    return [path for path in found if path.is_file()]


def _is_manifest(file: Path, declaration: Declaration) -> bool:
    columns = _columns_of(file, declaration.encoding)
    return set(REQUIRED) <= set(_our_columns(columns, declaration.columns))


def _columns_of(file: Path, encoding: str) -> tuple[str, ...]:
    """The table's columns; none where it cannot be read."""
    try:
        return open_table(file, encoding, wanted=()).columns
    except DatasetError:
        return ()


def _plain(column: str) -> str:
    return column.strip().lower()


def _our_columns(columns: Sequence[str], declared: Mapping[str, str]) -> list[str]:
    """Our word for each column, "" for those that are not used."""
    ours = {name: name for name in COLUMNS if name not in declared}
    ours |= {_plain(theirs): name for name, theirs in declared.items()}
    return [ours.get(column, "") for column in columns]


def _check_columns(ours: Sequence[str], columns: Sequence[str], declared: Mapping[str, str], name: str) -> None:
    wanted = [*REQUIRED, *(column for column in declared if column not in REQUIRED)]
    missing = [declared.get(column, column) for column in wanted if column not in ours]
    if missing:
        raise DatasetError(
            f"{name} has no column {', '.join(missing)}; its first line gives {', '.join(columns)[:200] or 'nothing'}.",
            hint=f"The first line names the columns, separated by commas: {', '.join(COLUMNS)}. If they are called "
            'otherwise, say so when registering: `columns`, e.g. {"identity": "person_id"}. If the file is something '
            "else, register the data set under the name of its format.",
        )
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{name} names a column twice: {', '.join(columns)[:200]}.", hint="Name each column once.")


def _split(value: str, where: str) -> Split:
    if value.lower() not in SPLITS:
        raise DatasetError(f"{where} has the split '{value}'.", hint=f"Splits are {', '.join(SPLITS)}.")
    return cast(Split, value.lower())


def _oml_split(row: Mapping[str, str], where: str, *, first: bool) -> Split | None:
    """The split of the row; None for validation rows that are neither query nor gallery."""
    split = _OML_SPLITS.get(row["split"].lower())
    if split is None:
        raise DatasetError(f"{where} has the split '{row['split']}'.", hint="Splits are train and validation.")
    if split == "train":
        return "train"
    is_query, is_gallery = (row[name].lower() in _TRUE for name in ("is_query", "is_gallery"))
    if is_query and (first or not is_gallery):
        return "query"
    return "gallery" if is_gallery else None


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
