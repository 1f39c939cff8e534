"""One revision of a gallery, ready to be searched: immutable, so that searches go on while a newer one takes its place.

The first images may lie under a FAISS index, which proposes candidates; all others are compared with one by one, in the
mapped file itself. Scores come from the stored vectors, so that they are the same whatever the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.filters import Filters
from reid_core.retrieval.index import candidates, closest
from reid_core.retrieval.kinds import choose_kind
from reid_core.retrieval.store import REBUILD, FeatureStore

NO_TIME = int(np.iinfo(np.int64).min)
"""Stands in `captured_at` for an image without a time. NumPy's "not a time" is the same number."""

EXACT_BELOW = 0.25
"""Where a filter keeps a smaller share, an index misses much (at an eighth of 100,000 images ivfpq finds 0.81 of the
ten best) or is slow: all images kept are compared, if no index would be built for so many."""

MARGIN = 16
TIE = 1e-5
"""Candidates beyond the cut, and the difference in score below which an index's order is not trusted."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Times = Sequence[datetime | None] | NDArray[np.int64]
"""Times of images, None for an image without one; or as in `Snapshot.captured_at`."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """N positions of a gallery. Made by `Snapshot.open`; methods return new snapshots and share what did not change.

    Attributes:
        store: embeddings of unit length, one per position.
        index: covers the first images, however many; None where none does.
        camera_names: names that `cameras` numbers.
        cameras: (N,) int32, number of each image's camera.
        captured_at: (N,) int64, microseconds since 1970 UTC, or `NO_TIME`.
        alive: (N,) bool, false for deleted images.
    """

    store: FeatureStore
    index: Any
    camera_names: tuple[str, ...]
    cameras: NDArray[np.int32]
    captured_at: NDArray[np.int64]
    alive: NDArray[np.bool_]

    @classmethod
    def open(cls, store: FeatureStore, cameras: Sequence[str], captured_at: Times, index: Any = None) -> Self:
        """The first N stored images, with camera ("" for none) and time of each; `index` covers the first of them.

        Raises IndexCorrupt where the store holds fewer than N, or `index` covers more.
        """
        if len(store.shape) != 1 or store.dtype != np.float32:
            detail = f"{store.path.name} holds records of shape {store.shape} and dtype {store.dtype}"
            raise CoreError(detail, hint="a gallery is searched by float32 vectors")
        if index is not None and index.ntotal > len(cameras):
            raise IndexCorrupt(f"the index covers {index.ntotal} images of {len(cameras)}", hint=REBUILD)
        nothing = (np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.bool_))
        return cls(store, index, (), *nothing).with_added(cameras, captured_at)

    def __len__(self) -> int:
        """Number of positions, deleted images included."""
        return len(self.alive)

    @property
    def num_indexed(self) -> int:
        """Number of positions that the index covers."""
        return 0 if self.index is None else int(self.index.ntotal)

    def with_added(self, cameras: Sequence[str], captured_at: Times) -> Self:
        """This and the images that the store holds at the next positions, one for each of `cameras`."""
        if len(cameras) != len(captured_at):
            raise CoreError(f"{len(cameras)} cameras and {len(captured_at)} times: each image needs one of each")
        numbers = {name: number for number, name in enumerate(self.camera_names)}
        added = np.array([numbers.setdefault(name, len(numbers)) for name in cameras], np.int32)
        self.store.rows(0, len(self) + len(added))  # maps the file now, which may be deleted while this is searched
        return replace(
            self,
            camera_names=tuple(numbers),
            cameras=_joined(self.cameras, added),
            captured_at=_joined(self.captured_at, _all_microseconds(captured_at)),
            alive=_joined(self.alive, np.ones(len(added), np.bool_)),
        )

    def with_changed(self, positions: ArrayLike, cameras: Sequence[str], captured_at: Times) -> Self:
        """This with another camera and time of the images at `positions`, one of each for every position."""
        numbers = {name: number for number, name in enumerate(self.camera_names)}
        places = np.asarray(positions, np.int64)
        changed, times = self.cameras.copy(), self.captured_at.copy()
        changed[places] = [numbers.setdefault(name, len(numbers)) for name in cameras]
        times[places] = _all_microseconds(captured_at)
        changed.flags.writeable = times.flags.writeable = False
        return replace(self, camera_names=tuple(numbers), cameras=changed, captured_at=times)

    def without(self, positions: ArrayLike) -> Self:
        """This without the images at `positions`; positions are never used again."""
        alive = self.alive.copy()
        alive[np.asarray(positions, np.int64)] = False
        alive.flags.writeable = False
        return replace(self, alive=alive)

    def keep(self, filters: Filters) -> NDArray[np.bool_]:
        """(N,) bool: which images `filters` let through, deleted ones not considered."""
        wanted = [
            (not filters.cameras or name in filters.cameras) and name not in filters.exclude_cameras
            for name in self.camera_names
        ]
        # A million lookups take 3 ms: as long as many a search.
        keep = np.ones(len(self), np.bool_) if all(wanted) else np.array(wanted, np.bool_)[self.cameras]
        if filters.captured_after is not None or filters.captured_before is not None:
            keep &= self.captured_at != NO_TIME
        if filters.captured_after is not None:
            keep &= self.captured_at >= _microseconds(filters.captured_after)
        if filters.captured_before is not None:
            keep &= self.captured_at < _microseconds(filters.captured_before)
        return keep

    def search(
        self, queries: NDArray[np.float32], k: int, *, keep: NDArray[np.bool_] | None = None, exact: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The `k` images closest to each query: scores and positions, both (B, min(k, number that match)).

        Best first; larger scores are closer, equal ones rank by position. Deleted images and those whose entry in
        `keep` (N,) is false never come back.

        Args:
            queries: (B, D) float32 of unit length.
            k: at least 1.
            keep: from `Snapshot.keep` of this very snapshot; None keeps all.
            exact: compare with every vector, whatever the index: the first of more results are then the same.
        """
        self._require_fitting(queries, k, keep)
        match = self.alive if keep is None else self.alive & keep
        num_matching = int(np.count_nonzero(match))
        k = min(k, num_matching)
        width = k
        while True:
            width = min(2 * width + MARGIN, num_matching)
            scores, positions = self._ranked(queries, match, width, exact)
            if width == num_matching or not _is_tied(scores, k, width):
                return scores[:, :k], positions[:, :k]

    def scores(self, queries: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, n) cosines of `queries` (B, D) and the images at `positions` (n,), to the digit those of `search`."""
        stored = self.store.read(positions)
        return np.stack([(stored * query).sum(axis=1) for query in queries])

    def _ranked(
        self, queries: NDArray[np.float32], match: NDArray[np.bool_], width: int, exact: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """At least `width` candidates of each query with their scores, best first."""
        first = self.num_indexed
        indexed = (self._compared if exact else self._indexed)(queries, match[:first], width)
        positions = np.concatenate([indexed, self._compared(queries, match, width, first)], axis=1)
        scores = np.full(positions.shape, -np.inf, np.float32)
        for query, places, row in zip(queries, positions, scores, strict=True):
            # Not a matrix product, whose rounding depends on where a row stands: equal images must score equal.
            row[places >= 0] = (self.store.read(places[places >= 0]) * query).sum(axis=1)
        order = np.lexsort((positions, -scores))
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)

    def _indexed(self, queries: NDArray[np.float32], match: NDArray[np.bool_], width: int) -> NDArray[np.int64]:
        """Positions (B, at least `width` or all) among `match`, which the index covers; -1 in places left."""
        num_matching = int(np.count_nonzero(match))
        if num_matching and not self._is_narrow(num_matching):
            found = candidates(self.index, queries, width, match)
            if ((found >= 0).sum(axis=1) >= min(width, num_matching)).all():
                return found
        return self._compared(queries, match, width)

    def _is_narrow(self, num_matching: int) -> bool:
        """True where comparing with all that match beats asking the index, in time or in what it finds."""
        share = num_matching / self.num_indexed
        return share < EXACT_BELOW and choose_kind(num_matching, self.store.shape[0]) == "flat"

    def _compared(
        self, queries: NDArray[np.float32], match: NDArray[np.bool_], width: int, start: int = 0
    ) -> NDArray[np.int64]:
        """The `width` closest to each query among those of `match` from position `start` on."""
        return start + closest(queries, self.store.rows(start, len(match)), width, match[start:])

    def _require_fitting(self, queries: NDArray[np.float32], k: int, keep: NDArray[np.bool_] | None) -> None:
        if queries.shape[1:] != self.store.shape:
            raise CoreError(
                f"the gallery holds vectors of {self.store.shape[0]} numbers, the query has shape {queries.shape}",
                hint="embed the query with the gallery's own model",
            )
        if not np.isfinite(queries).all():
            raise CoreError("the query holds values that are not finite")
        if k < 1:
            raise CoreError(f"top_k must be at least 1, got {k}")
        if keep is not None and keep.shape != self.alive.shape:
            raise CoreError(f"the filter is for {len(keep)} images, this snapshot has {len(self)}")


def _is_tied(scores: NDArray[np.float32], k: int, width: int) -> bool:
    """True where images that were not proposed could score as high as a query's k-th result."""
    return bool((scores[:, k - 1] - scores[:, width - 1] < TIE).any())


def _joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    joined = np.concatenate([first, second])
    joined.flags.writeable = False
    return joined


def _all_microseconds(moments: Times) -> NDArray[np.int64]:
    if isinstance(moments, np.ndarray):
        return moments
    return np.array([NO_TIME if moment is None else _microseconds(moment) for moment in moments], np.int64)


def _microseconds(moment: datetime) -> int:
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (zoned - EPOCH) // timedelta(microseconds=1)
