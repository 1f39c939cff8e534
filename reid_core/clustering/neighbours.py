"""The nearest neighbours of every embedding, found exactly by FAISS a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.errors import Stopped
from reid_core.reranking.encoding import Neighbours

_QUERIES_AT_ONCE = 4096


def find_nearest(
    embeddings: NDArray[np.float32],
    k: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> Neighbours:
    """The k nearest others of every image by squared Euclidean distance (0 to 4), fewer where there are fewer.

    `farthest` is 1 of every image: distances of unit vectors need no scale.

    Args:
        embeddings: (N, D) of unit length.
        on_progress: gets (images done, images in all).
        should_stop: asked before every block; True raises `Stopped`.
    """
    size, count = len(embeddings), min(k + 1, len(embeddings))
    indices, similarities = np.empty((size, count), np.int64), np.empty((size, count), np.float32)
    for start in range(0, size, _QUERIES_AT_ONCE):
        if should_stop():
            raise Stopped
        block = embeddings[start : start + _QUERIES_AT_ONCE]
        stop = start + len(block)
        values, found = faiss.knn(block, embeddings, count, metric=faiss.METRIC_INNER_PRODUCT)
        order = _order_self_first(found, start)
        similarities[start:stop] = np.take_along_axis(values, order, axis=1)
        indices[start:stop] = np.take_along_axis(found, order, axis=1)
        indices[start:stop, 0] = np.arange(start, stop)
        on_progress(stop, size)
    distances = torch.from_numpy(2 - 2 * similarities)
    distances[:, 0] = -torch.inf
    return Neighbours(torch.from_numpy(indices), distances, torch.ones(size))


def _order_self_first(indices: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """Each row's order with its own image before all, its duplicates too, then the others, nearest first."""
    is_own = indices == np.arange(start, start + len(indices))[:, None]
    is_own[~is_own.any(axis=1), -1] = True  # more duplicates than neighbours asked for: the last makes room
    return np.argsort(~is_own, axis=1, kind="stable")
