"""Recall of an index: how much of what comparing with every vector finds a search through the index finds too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reid_core.errors import Stopped
from reid_core.retrieval.snapshot import Snapshot

MAX_QUERIES = 100
DEPTHS = (10, 100)
_QUERIES_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """The shares (0 to 1) of the 10 and of the 100 closest images that a search through the index finds.

    Means over as many stored vectors as `queries`, each left out itself; of fewer other images all count.
    """

    at_10: float
    at_100: float
    queries: int


def estimate_index_recall(
    snapshot: Snapshot, generator: np.random.Generator, *, should_stop: Callable[[], bool] = lambda: False
) -> IndexRecall | None:
    """Estimates the recall of the snapshot's index on a random sample; None where there are fewer than two vectors.

    Erased vectors, which are zeros, ask for nothing. Raises Stopped when `should_stop` says so.
    """
    sample = generator.permutation(len(snapshot))[: 2 * MAX_QUERIES]
    queries = sample[snapshot.store.read(sample).any(axis=1)][:MAX_QUERIES]
    if len(queries) < 1 or len(snapshot) < 2:
        return None
    shares = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        if should_stop():
            raise Stopped
        shares.append(_shares(snapshot, queries[start : start + _QUERIES_AT_ONCE]))
    at_10, at_100 = np.concatenate(shares).mean(axis=0).tolist()
    return IndexRecall(at_10, at_100, len(queries))


def _shares(snapshot: Snapshot, queries: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, 2) shares found of the closest at each of `DEPTHS`."""
    found, expected = (_others(one, queries) for one in (snapshot, replace(snapshot, index=None)))
    shares = [
        [np.isin(*pair).mean() for pair in zip(expected[:, :depth], found[:, :depth], strict=True)] for depth in DEPTHS
    ]
    return np.array(shares).T


def _others(snapshot: Snapshot, queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B, 100 or all others) positions closest to the vectors at `queries`, without these."""
    _, positions = snapshot.search(snapshot.store.read(queries), max(DEPTHS) + 1)
    itself_last = np.argsort(positions == queries[:, None], axis=1, kind="stable")
    return np.take_along_axis(positions, itself_last, axis=1)[:, :-1]
