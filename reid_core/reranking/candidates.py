"""Scores of one query's candidates by k-reciprocal neighbours, as searches order them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reid_core.reranking.k_reciprocal import Reciprocal, rerank_candidates


def score_candidates(query: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) scores of n candidates (n, D), 1 - their k-reciprocal distances: 0 to 1, larger is closer.

    Neighbours are sought among the candidates only. Of several query vectors (V, D) the closest counts for each
    candidate. All are of unit length.
    """
    to_query = _distances(query, candidates).min(axis=0)
    distances = rerank_candidates(to_query, _distances(candidates, candidates), Reciprocal())
    scores: NDArray[np.float64] = 1 - distances.double().numpy()
    return scores


def _distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """(A, B) squared Euclidean distances of unit vectors (A, D) and (B, D)."""
    squared: NDArray[np.float32] = (2 - 2 * (first @ second.T)).clip(min=0)
    return squared
