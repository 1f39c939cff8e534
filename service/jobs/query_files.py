"""Files of queries, JSON lines or Parquet, read block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from reid_core.retrieval.columns import holds_embeddings, open_parquet, read_embeddings
from service.errors import Problem, invalid_request
from service.schemas import Body

BLOCK = 256
"""Queries that are read, compared and written together."""

_MAGIC = b"PAR1"
_MOST_NUMBERS = 100_000
_LINE_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class FileQuery:
    """One query: an image's id, or an embedding (D,) float32. `id` is the caller's own name of it."""

    id: str | None
    image_id: str | None = None
    embedding: NDArray[np.float32] | None = None


class _Line(Body):
    """A line of a file of JSON lines."""

    id: str | None = Field(default=None, max_length=200)
    image_id: str | None = Field(default=None, min_length=1, max_length=200)
    embedding: list[float] | None = Field(default=None, min_length=1, max_length=_MOST_NUMBERS)

    @model_validator(mode="after")
    def _one_of_both(self) -> _Line:
        if (self.image_id is None) == (self.embedding is None):
            raise ValueError("a query has an `image_id` or an `embedding`, one of the two")
        return self

    def query(self) -> FileQuery:
        """The line as a query."""
        embedding = None if self.embedding is None else np.array(self.embedding, np.float64).astype(np.float32)
        return FileQuery(self.id, self.image_id, embedding)


def check_file(path: Path) -> None:
    """Raises 422 unless the file's first block can be read; what is wrong further on ends the job."""
    if next(read_blocks(path), None) is None:
        raise _unusable("the file holds no queries")


def count_queries(path: Path) -> int:
    """The number of queries in the file."""
    if _is_parquet(path):
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def read_blocks(path: Path) -> Iterator[list[FileQuery]]:
    """The queries in the file's order, `BLOCK` at a time; raises 422 where it cannot be read."""
    return _parquet_blocks(path) if _is_parquet(path) else _line_blocks(path)


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _line_blocks(path: Path) -> Iterator[list[FileQuery]]:
    block: list[FileQuery] = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES), b""), 1):
            if line.strip():
                block.append(_read_line(line, number))
            if len(block) == BLOCK:
                yield block
                block = []
    if block:
        yield block


def _read_line(line: bytes, number: int) -> FileQuery:
    try:
        return _Line.model_validate(json.loads(line)).query()
    except ValidationError as error:
        raise _unusable(f"line {number}: {error.errors()[0]['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(f"line {number} is not JSON: {error}") from error


def _parquet_blocks(path: Path) -> Iterator[list[FileQuery]]:
    try:
        with open_parquet(path, most_numbers=_MOST_NUMBERS) as file:
            _check_columns(file.schema_arrow)
            names = [name for name in ("id", "image_id", "embedding") if name in file.schema_arrow.names]
            first = 0
            for batch in file.iter_batches(batch_size=BLOCK, columns=names):
                yield [_read_row(row, first + place) for place, row in enumerate(_rows(batch))]
                first += len(batch)
    except pyarrow.ArrowException as error:
        raise _unusable(f"the Parquet file cannot be read: {error}") from error


def _check_columns(schema: Any) -> None:
    found = {field.name: field.type for field in schema}
    kinds = pyarrow.types
    if "embedding" in found and not holds_embeddings(found["embedding"]):
        raise _unusable(f"column embedding holds {found['embedding']}, lists of floats are needed")
    if "image_id" in found and not (kinds.is_string(found["image_id"]) or kinds.is_large_string(found["image_id"])):
        raise _unusable(f"column image_id holds {found['image_id']}, text is needed")
    if not {"embedding", "image_id"} & found.keys():
        raise _unusable(f"it has no column embedding or image_id, but {', '.join(found) or 'none'}")


def _rows(batch: Any) -> Iterator[tuple[Any, Any, Any]]:
    nothing, names = [None] * len(batch), batch.schema.names
    texts = [batch.column(name).to_pylist() if name in names else nothing for name in ("id", "image_id")]
    vectors = read_embeddings(batch.column("embedding")) if "embedding" in names else nothing
    yield from zip(*texts, vectors, strict=True)


def _read_row(row: tuple[Any, Any, Any], number: int) -> FileQuery:
    own_id, image_id, embedding = row
    if (image_id is None) == (embedding is None):
        raise _unusable(f"row {number}: a query has an image_id or an embedding, one of the two")
    return FileQuery(None if own_id is None else str(own_id), image_id, embedding)


def _unusable(reason: str) -> Problem:
    hint = (
        'Send Parquet with a column `embedding` or `image_id`, or lines like {"image_id": "img_…"}; both may have `id`.'
    )
    return invalid_request("/queries", "unusable-file", reason, hint=hint)
