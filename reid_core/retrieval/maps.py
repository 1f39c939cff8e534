"""Local feature maps on disk, one per gallery position, for re-ranking by matching: half precision, or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid_core.errors import CoreError
from reid_core.retrieval.store import FeatureStore

MAP_DTYPES = ("float16", "int8")

_STEP = np.float32(1 / 127)
"""Between the numbers that int8 keeps, from -1 to 1."""


class MapStore:
    """Maps of h x w locations, row by row, with c numbers from -1 to 1 each; read through a memory map.

    Made by `MapStore.create` or `MapStore.open`. Threads may share one.
    """

    def __init__(self, records: FeatureStore) -> None:
        height, width, channels = records.shape
        self._records = records
        self._locations = (height * width, channels)

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int, int], dtype: str) -> Self:
        """A store without maps at `path`, for maps of `shape` (h, w, c) as one of `MAP_DTYPES`."""
        return cls(FeatureStore.create(path, shape, _known(dtype)))

    @classmethod
    def open(cls, path: Path, shape: tuple[int, int, int], dtype: str, *, count: int = 0) -> Self:
        """The store at `path`; IndexCorrupt where it holds other maps, or fewer than the `count` committed ones."""
        return cls(FeatureStore.open(path, shape, _known(dtype), count=count))

    @classmethod
    def unread(cls, path: Path, shape: tuple[int, int, int], dtype: str) -> Self:
        """The same without looking at the file, for `erase`."""
        return cls(FeatureStore(path, shape, _known(dtype)))

    def __len__(self) -> int:
        """Number of whole maps in the file, those of crashed writers included."""
        return len(self._records)

    def write(self, position: int, maps: NDArray[np.floating[Any]]) -> None:
        """Puts `maps` (n, h * w, c) at `position` and after it, rounded; on disk when it returns.

        Raises CoreError for another shape or values that are not finite, IndexCorrupt where maps before `position`
        are missing.
        """
        if maps.shape[1:] != self._locations:
            raise CoreError(f"the store takes maps of shape {self._locations}, got {maps.shape[1:]}")
        records = maps.reshape(-1, *self._records.shape)
        self._records.write(position, _steps(records) if self._records.dtype == np.int8 else records)

    def read(self, positions: ArrayLike) -> NDArray[np.floating[Any]]:
        """A copy of the maps at `positions` (n,): (n, h * w, c) float16, or float32 from int8."""
        self._records.prefetch(positions)
        stored = self._records.read(positions)
        maps: NDArray[np.floating[Any]] = stored * _STEP if stored.dtype == np.int8 else stored
        return maps.reshape(-1, *self._locations)

    def hold(self, count: int) -> None:
        """Maps the file as far as `count` records, so that these stay readable when the file is deleted."""
        self._records.rows(0, count)

    def erase(self, positions: Sequence[int]) -> None:
        """Overwrites the maps at `positions` with zeros in the file; on disk when it returns."""
        self._records.erase(positions)


def map_bytes(shape: Sequence[int], dtype: str) -> int:
    """Computes the bytes of one image's local features.

    24 x 8 locations of 64 numbers take 24,576 bytes as float16, half of that as int8.
    """
    return int(np.prod(shape)) * _known(dtype).itemsize


def _steps(maps: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if not np.isfinite(maps).all():  # as bytes they would look like any other
        raise CoreError("maps to be kept as int8 hold values that are not finite")
    steps: NDArray[np.floating[Any]] = np.rint(maps / _STEP)
    return steps.clip(-127, 127)


def _known(dtype: str) -> np.dtype[Any]:
    if dtype not in MAP_DTYPES:
        raise CoreError(f"maps cannot be kept as {dtype!r}", hint=f"choose one of {', '.join(MAP_DTYPES)}")
    return np.dtype(dtype)
