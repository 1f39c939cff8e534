"""A file of fixed-size records, one per gallery position: embeddings, or the local feature maps that re-rankers read.

Layout: one page of JSON that states the record's shape and dtype, padded with spaces; then the records back to back.
The database says how many records count. What lies beyond is left by a writer that crashed before its commit, and the
next writer overwrites it. One process writes at a time (the caller holds the database's lock); any number may read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid_core.errors import CoreError, IndexCorrupt

HEADER_BYTES = 4096
REBUILD = "restore the file from a backup, or rebuild the gallery with an index job"


class FeatureStore:
    """Records of one shape and dtype on disk, read through a memory map, so that the file is never loaded whole.

    Made by `FeatureStore.create` or `FeatureStore.open`, which look at the file. Threads may share one.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.record_bytes = int(np.prod(shape)) * dtype.itemsize
        self._map: NDArray[Any] = np.empty((0, *shape), dtype)

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Self:
        """A store without records at `path`; CoreError where a file already lies there."""
        if path.exists():
            raise CoreError(f"{path.name} already exists", hint="open it, or choose another name")
        write_atomically(path, lambda scratch: scratch.write_bytes(_header(shape, dtype)))
        return cls(path, shape, dtype)

    @classmethod
    def open(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, count: int = 0) -> Self:
        """The store at `path`; IndexCorrupt where it holds other records, or fewer than the `count` committed ones."""
        found = _stated(path)
        if found != _statement(shape, dtype):
            raise IndexCorrupt(f"{path.name} holds {found}, expected {_statement(shape, dtype)}", hint=REBUILD)
        store = cls(path, shape, dtype)
        store._require(count)
        return store

    def __len__(self) -> int:
        """Number of whole records in the file, those of crashed writers included."""
        return max(0, self.path.stat().st_size - HEADER_BYTES) // self.record_bytes

    def write(self, position: int, records: NDArray[Any]) -> None:
        """Puts `records` (n, *shape) at `position` and after it, rounded to the store's dtype; on disk when it returns.

        Raises CoreError for another shape or values that are not finite, IndexCorrupt where records before `position`
        are missing.
        """
        if records.shape[1:] != self.shape:
            raise CoreError(f"{self.path.name} takes records of shape {self.shape}, got {records.shape[1:]}")
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(records, dtype=self.dtype)
        if not np.isfinite(rounded).all():
            raise CoreError(f"{self.path.name}: records for position {position} hold values that are not finite")
        self._require(position)
        self._overwrite([position], rounded.tobytes())

    def read(self, positions: ArrayLike) -> NDArray[Any]:
        """A copy of the records at `positions`, any shape of integers: (*positions.shape, *shape)."""
        places = self._places(positions)
        copy: NDArray[Any] = self._records(int(places.max(initial=-1)) + 1)[places]
        return copy

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """The records at `start` up to `stop`, as a read-only view of the file: (stop - start, *shape)."""
        return self._records(stop)[start:stop]

    def read_ahead(self, count: int) -> None:
        """Asks the system to read the first `count` records from disk, and does not wait for that."""
        mapped: Any = self._records(count).base
        if mapped is not None:
            mapped.madvise(mmap.MADV_WILLNEED)

    def prefetch(self, positions: ArrayLike) -> None:
        """Asks the system to read the records at `positions` from disk together; `read` waits for one after the other.

        100 random records of 24 KiB that were not in memory took 5 ms so, and 600 ms without (a virtual disk). Where
        they were, asking costs 0.1 ms: too much for small records.
        """
        places = self._places(positions)
        mapped: Any = self._records(int(places.max(initial=-1)) + 1).base
        for place in places.ravel().tolist():
            start = HEADER_BYTES + place * self.record_bytes
            page = start - start % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, page, start + self.record_bytes - page)

    def erase(self, positions: Sequence[int]) -> None:
        """Overwrites the records at `positions` with zeros in the file; on disk when it returns."""
        self._require(max(positions, default=-1) + 1)
        self._overwrite(positions, bytes(self.record_bytes))

    def _places(self, positions: ArrayLike) -> NDArray[np.int64]:
        places = np.asarray(positions, dtype=np.int64)
        if places.size and places.min() < 0:
            raise IndexCorrupt(f"{self.path.name} has no position {places.min()}", hint=REBUILD)
        return places

    def _overwrite(self, positions: Sequence[int], content: bytes) -> None:
        with self.path.open("r+b") as file:
            for position in positions:
                file.seek(HEADER_BYTES + position * self.record_bytes)
                file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _records(self, count: int) -> NDArray[Any]:
        """A map of at least `count` records, mapped anew where the file has grown past the one at hand."""
        records = self._map
        if len(records) < count:
            self._require(count)
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            held = (len(mapped) - HEADER_BYTES) // self.record_bytes
            self._map = records = np.ndarray((held, *self.shape), self.dtype, mapped, HEADER_BYTES)
        return records

    def _require(self, count: int) -> None:
        if len(self) < count:
            raise IndexCorrupt(f"{self.path.name} holds {len(self)} records, {count} are needed", hint=REBUILD)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`path` holds what `write` put into the file it was given, whole and on disk; or after a crash, what it held."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(scratch)
        _sync(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    _sync(path.parent)


def file_sha256(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _statement(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, object]:
    return {"shape": list(shape), "dtype": dtype.str}


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    return json.dumps(_statement(shape, dtype)).encode().ljust(HEADER_BYTES)


def _stated(path: Path) -> object:
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        if len(header) == HEADER_BYTES:
            return json.loads(header)
    except FileNotFoundError:
        raise IndexCorrupt(f"{path.name} is missing", hint=REBUILD) from None
    except ValueError:
        pass
    raise IndexCorrupt(f"{path.name} is not a feature store: its header is unreadable", hint=REBUILD)
