"""Jaccard distances between images that have neighbours in common (Zhong et al. 2017, eq. 10), as a sparse graph.

They are those of `reid_core.reranking.k_reciprocal` with a weight of 0 and, as in the code of SpCL (Ge et al. 2020),
exp(-d) in eq. 7 without the division by the largest distance. Images without a common neighbour are at distance 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.clustering.neighbours import find_nearest
from reid_core.reranking.distances import read_set, split_rows
from reid_core.reranking.encoding import Sparse, compress, encode_neighbours, expand_queries, sum_minima
from reid_core.reranking.k_reciprocal import Reciprocal


def measure_jaccard(
    embeddings: NDArray[np.float32],
    parameters: Reciprocal,
    limit: float,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> Sparse:
    """(N, N) Jaccard distances up to `limit` (below 1), each image's own left out; symmetric, smaller is closer.

    Memory is O(N k1), the entries kept, and one block of rows.

    Raises:
        CoreError: the embeddings are none, not of two dimensions or not finite.
        Stopped: `should_stop` said so.
    """
    original = read_set(embeddings)
    neighbours = find_nearest(embeddings, parameters.k1, on_progress, should_stop)
    encodings = encode_neighbours(original, neighbours, round(parameters.k1 / 2), should_stop)
    encodings = expand_queries(encodings, neighbours.indices[:, : parameters.k2], should_stop)
    return _keep_near(encodings, len(embeddings), limit, should_stop)


def _keep_near(encodings: Sparse, size: int, limit: float, should_stop: Callable[[], bool]) -> Sparse:
    sharers = encodings.transpose(0)
    rows, columns, values = [], [], []
    for start, stop in split_rows(size, should_stop):
        minima = sum_minima(encodings, sharers, start, stop, size)
        minima.diagonal(start).zero_()
        # Every encoding sums to 1, so the larger of two's entries sum to 2 less the smaller: 1 - m / (2 - m) <= limit.
        near, others = (minima >= 2 * (1 - limit) / (2 - limit)).nonzero(as_tuple=True)
        shared = minima[near, others]
        rows.append(start + near)
        columns.append(others)
        values.append(1 - shared / (2 - shared))
    return compress(size, torch.cat(rows), torch.cat(columns), torch.cat(values))
