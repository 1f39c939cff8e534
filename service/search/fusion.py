"""Several images of one person as one query."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.retrieval.directions import to_directions
from service.errors import Problem


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """`vectors` (N, D) scaled to unit length; 422 where one is zero or not finite."""
    directions, has_direction = to_directions(vectors)
    if not has_direction.all():
        raise Problem("unprocessable", "The query's embedding is zero or not finite, so it has no direction.")
    return directions


def mean_direction(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, D): the mean of unit vectors (N, D), scaled to unit length again."""
    return vectors if len(vectors) == 1 else unit(vectors.mean(axis=0, keepdims=True))


def best_scores(
    scores: NDArray[np.float32], positions: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` images with the highest score for any query, best first; equal ones rank by position.

    `scores` and `positions` (B, k) are each query's own best: whoever is among the best of all is among those.
    """
    order = np.lexsort((positions.ravel(), -scores.ravel()))
    ranked_scores, ranked = scores.ravel()[order], positions.ravel()[order]
    first = np.sort(np.unique(ranked, return_index=True)[1])[:k]
    return ranked_scores[first], ranked[first]
