"""Files of embeddings that were made elsewhere, with what is known of their images: Parquet, or npy and JSON lines."""

from __future__ import annotations

import json
import sys
import tokenize
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import ValidationError

from reid_core.retrieval.columns import holds_embeddings, open_parquet, read_embeddings
from service.errors import Problem, invalid_request
from service.galleries.image_schemas import ImageDetails

BLOCK = 1000
"""Rows that are held at a time."""

_MAGIC = {b"PAR1": "parquet", b"\x93NUM": "npy"}
_KNOWN = {"embedding", *ImageDetails.model_fields}
_IGNORED = {"image_id"}
"""A column of our own exports: an image that is added gets an id of its own."""

_HEADER_FAULTS = (ValueError, TypeError, SyntaxError, MemoryError, tokenize.TokenError, OSError)
"""Those that NumPy lets through: a header is a Python literal, and these are what reading one raises."""

Block = tuple[NDArray[np.float64], list[ImageDetails]]
"""N embeddings (N, D) and what is known of their images."""


class EmbeddingFile:
    """The rows of an uploaded file, which may be gone through several times.

    Raises 422 for a file that cannot be read, or whose embeddings do not all have `size` numbers.
    """

    def __init__(self, embeddings: BinaryIO, metadata: BinaryIO | None, size: int) -> None:
        self._embeddings = embeddings
        self._metadata = metadata
        self._size = size
        embeddings.seek(0)
        kind = _MAGIC.get(embeddings.read(4))
        if kind is None:
            raise _unusable("/embeddings", "it is neither Parquet nor npy")
        self._is_parquet = kind == "parquet"
        if self._is_parquet and metadata is not None:
            raise _unusable("/metadata", "a Parquet file has columns for it; `metadata` goes with npy")

    def __len__(self) -> int:
        self._embeddings.seek(0)
        if not self._is_parquet:
            return self._read_header()[0]
        try:
            return int(pyarrow.parquet.read_metadata(self._embeddings).num_rows)
        except pyarrow.ArrowException as error:
            raise _unusable("/embeddings", f"the Parquet file cannot be read: {error}") from error

    def blocks(self) -> Iterator[Block]:
        """All rows, `BLOCK` at a time."""
        self._embeddings.seek(0)
        return self._parquet() if self._is_parquet else self._npy()

    def _parquet(self) -> Iterator[Block]:
        try:
            file = open_parquet(self._embeddings, most_numbers=self._size)
            names = _check_columns(file.schema_arrow)
            first = 0
            for batch in file.iter_batches(batch_size=BLOCK, columns=names):
                vectors = self._stacked(read_embeddings(batch.column("embedding")), first)
                rows = batch.drop_columns(["embedding"]).to_pylist() if len(names) > 1 else [{}] * len(batch)
                yield vectors, [_read_details(row, first + place) for place, row in enumerate(rows)]
                first += len(batch)
        except pyarrow.ArrowException as error:
            raise _unusable("/embeddings", f"the Parquet file cannot be read: {error}") from error

    def _stacked(self, vectors: list[NDArray[np.float32] | None], first: int) -> NDArray[np.float64]:
        for place, vector in enumerate(vectors):
            if vector is None or len(vector) != self._size:
                given = "no embedding" if vector is None else f"{len(vector)} numbers"
                raise _unusable(
                    f"/embeddings/{first + place}", f"it has {given}; the gallery's model makes {self._size}"
                )
        return np.array(vectors, np.float64)

    def _npy(self) -> Iterator[Block]:
        count, kind = self._read_header()
        details = self._details(count)
        for start in range(0, count, BLOCK):
            rows = min(BLOCK, count - start)
            wanted = rows * self._size * kind.itemsize
            content = self._embeddings.read(wanted)
            if len(content) != wanted:
                raise _unusable(
                    "/embeddings", f"the file ends within row {start + len(content) // max(1, wanted // rows)}"
                )
            known = list(islice(details, rows))
            yield np.frombuffer(content, kind).reshape(rows, self._size).astype(np.float64), known
        if next(details, None) is not None:
            raise _unusable("/metadata", f"it has more lines than there are embeddings, {count}")

    def _read_header(self) -> tuple[int, np.dtype[Any]]:
        """The number of rows and the type of the numbers; the file stands before the first row then."""
        try:
            version = np.lib.format.read_magic(self._embeddings)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, kind = read(self._embeddings)
        except _HEADER_FAULTS as error:
            raise _unusable("/embeddings", f"the npy file cannot be read: {error}") from error
        is_matrix = len(shape) == 2 and shape[1] == self._size and 0 <= shape[0] <= sys.maxsize
        if not is_matrix or is_fortran or kind.kind != "f":
            reason = f"it holds {kind} of shape {shape}; rows of {self._size} floating numbers are needed"
            raise _unusable("/embeddings", reason)
        return int(shape[0]), kind

    def _details(self, count: int) -> Iterator[ImageDetails]:
        if self._metadata is None:
            yield from (ImageDetails() for _ in range(count))
            return
        self._metadata.seek(0)
        number = 0
        for number, line in enumerate(iter(self._metadata.readline, b""), 1):
            try:
                yield _read_details(json.loads(line), number - 1)
            except (ValueError, RecursionError) as error:
                raise _unusable(f"/metadata/{number - 1}", f"line {number} is not JSON: {error}") from error
        if number < count:
            raise _unusable("/metadata", f"it has {number} lines for {count} embeddings")


def _check_columns(schema: Any) -> list[str]:
    found = {field.name: field.type for field in schema}
    if "embedding" not in found or not holds_embeddings(found["embedding"]):
        kind = found.get("embedding", "nothing")
        raise _unusable("/embeddings", f"column embedding holds {kind}, lists of floats are needed")
    if unknown := sorted(found.keys() - _KNOWN - _IGNORED):
        raise _unusable("/embeddings", f"column {unknown[0]} is unknown; known are {', '.join(sorted(_KNOWN))}")
    return [name for name in found if name not in _IGNORED]


def _read_details(values: Any, number: int) -> ImageDetails:
    try:
        return ImageDetails.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, (number, *first["loc"])))
        raise _unusable(f"/metadata/{where}", first["msg"]) from error


def _unusable(pointer: str, reason: str) -> Problem:
    hint = (
        "Send Parquet as GET /galleries/{gallery}/embeddings gives it, or npy with `metadata` of a JSON object a line."
    )
    return invalid_request(pointer, "unusable-file", reason, hint=hint)
