"""Embeddings in columns of Arrow tables: lists of numbers, all of one length or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

_BUFFER_BYTES = 2**20


def open_parquet(source: Path | BinaryIO, *, most_numbers: int) -> Any:
    """The Parquet file, to be read in batches: by default Arrow holds a whole row group, 400 MB of 200,000 x 512.

    Raises ArrowInvalid where the rows of a group have more numbers in column `embedding` than `most_numbers` each:
    some hundred bytes can stand for a hundred million zeros, which would be in memory before a row can be looked at.
    """
    file = pyarrow.parquet.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if (numbers := _count_numbers(group)) > group.num_rows * most_numbers:
            reason = f"row group {number} has {numbers:,} numbers in {group.num_rows:,} rows of column embedding"
            raise pyarrow.ArrowInvalid(f"{reason}, {most_numbers:,} a row at most are taken")
    return file


def _count_numbers(group: Any) -> int:
    columns = (group.column(place) for place in range(group.num_columns))
    return sum(int(column.num_values) for column in columns if column.path_in_schema.split(".")[0] == "embedding")


def holds_embeddings(kind: pyarrow.DataType) -> bool:
    """True for a column of lists of floating numbers."""
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists) and bool(pyarrow.types.is_floating(kind.value_type))


def read_embeddings(column: Any) -> list[NDArray[np.float32] | None]:
    """Each row of an array of such lists as float32 (D,); None where it is null."""
    rows = column.to_numpy(zero_copy_only=False)
    return [None if row is None else np.asarray(row, np.float32) for row in rows]


def write_embeddings(vectors: NDArray[np.float32]) -> Any:
    """An array of fixed-size lists of `vectors` (N, D)."""
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
