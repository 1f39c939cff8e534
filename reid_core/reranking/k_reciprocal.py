"""k-reciprocal re-ranking: distances that also ask how far two images have the same neighbours.

Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding", arXiv:1701.08398. Needs no labels.
Over all N images, queries and gallery together, with d(i, j) the given or the squared Euclidean distance (eq. 1):

    N(i, k)   i itself, then its k nearest others; equal distances rank by index (eq. 2)
    R(i, k)   those j in N(i, k) that have i in N(j, k) (eq. 3)
    R*(i)     R(i, k1) and every R(q, k1 / 2), q in R(i, k1), of which more than 2/3 lie in R(i, k1) (eq. 4)
    V(i, j)   exp(-d(i, j) / max d(i, .)) for j in R*(i), else 0; divided by its sum over j (eq. 7)
    V'(i, .)  mean of V(j, .) over the first k2 images j of N(i, k1) (eq. 11)
    J(i, j)   1 - sum min(V'(i, .), V'(j, .)) / sum max(V'(i, .), V'(j, .)) (eq. 10)
    result    (1 - weight) J(i, j) + weight d(i, j) / max d(i, .): from 0 to 1, smaller is closer (eq. 12)

Where the paper is silent or the code that made its numbers departs from it, that code is followed: neighbours are
sought among queries too, every row of distances is divided by its largest, V by its sum (not in eq. 7), and a share of
exactly 2/3 does not count (in eq. 4 it does). k1 / 2 rounds to the nearest integer, halves to even. An image's
distance to itself is 0 whatever is given. The result need not be symmetric.

Kept are the k1 nearest of every image and the few entries of V' that are not 0: memory O(N k1), and one block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.errors import CoreError
from reid_core.reranking.distances import Array, Distances, read_embeddings, read_matrix, read_stored, split_rows
from reid_core.reranking.encoding import Sparse, encode_neighbours, expand_queries, find_neighbours, sum_minima


@dataclass(frozen=True, slots=True)
class Reciprocal:
    """The settings of re-ranking; the defaults are the paper's.

    k1: two images must be among each other's k1 nearest. k2: so many images' encodings are averaged, the image's
    own among them; 1 leaves each as it is. weight: share of the original distance in the result, the paper's lambda.

    Raises:
        CoreError: a number is out of range.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1:
            raise CoreError(f"Re-ranking was given k1 = {self.k1}.", hint="Use 1 or more; the paper uses 20.")
        if not 1 <= self.k2 <= self.k1:
            raise CoreError(
                f"Re-ranking was given k2 = {self.k2} with k1 = {self.k1}.",
                hint="Use a k2 from 1 to k1; the paper uses 6 with a k1 of 20.",
            )
        if not 0 <= self.weight <= 1:
            raise CoreError(
                f"Re-ranking was given weight = {self.weight}.", hint="Use one from 0 to 1; the paper uses 0.3."
            )


def rerank_embeddings(
    query: Array,
    gallery: Array,
    parameters: Reciprocal,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reranked:
    """Re-ranked distances of every query to every gallery image, by their squared Euclidean distances.

    Args:
        query, gallery: (Q, D) and (G, D), on any one device; compared in float32.
        on_progress: gets (images done, images in all) while neighbours are sought, nearly all of the time.
        should_stop: asked before every block; True raises `Stopped`.

    Raises:
        CoreError: a split is empty, the sizes of the embeddings differ, or one is not finite.
        Stopped: `should_stop` said so.
    """
    return _rerank(read_embeddings(query, gallery), len(query), parameters, on_progress, should_stop)


def rerank_distances(distances: Array, parameters: Reciprocal) -> Tensor:
    """(N, N) float32 re-ranked distances of images to each other, from 0 to 1, smaller is closer.

    For few images, such as one of each class for graph sampling. The code of its authors hands the matrix in twice
    over, as queries and as gallery, where every image is its own double; here each is there once.

    Args:
        distances: (N, N), row i holds those of image i to all, 0 or more, smaller is closer. Squared Euclidean ones
            give what `rerank_embeddings` gives; those of QAConv are 1 - sigmoid(score / 10).

    Raises:
        CoreError: the matrix is empty or not square, or a distance is negative or not finite.
    """
    matrix = read_matrix(distances)
    reranked = _rerank(matrix, 0, parameters)
    return torch.cat([reranked.distances(start, stop) for start, stop in split_rows(matrix.size)])


def rerank_stored(
    matrix: NDArray[np.float32],
    queries: int,
    parameters: Reciprocal,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reranked:
    """Re-ranked distances of every query to every gallery image, by a matrix that need not fit in memory.

    Args:
        matrix: (N, N) 0 or more, smaller is closer, 0 on the diagonal; the first `queries` images are queries.

    Other arguments and errors as in `rerank_embeddings`.
    """
    return _rerank(read_stored(matrix), queries, parameters, on_progress, should_stop)


def rerank_candidates(query_to_candidates: Array, candidates_to_candidates: Array, parameters: Reciprocal) -> Tensor:
    """(n,) float32 re-ranked distances of one query to its n candidates, from 0 to 1, smaller is closer.

    Args:
        query_to_candidates, candidates_to_candidates: (n,) and (n, n), as in `rerank_distances`.

    Raises:
        CoreError: the shapes do not fit, or a distance is negative or not finite.
    """
    to_query, among = torch.as_tensor(query_to_candidates), torch.as_tensor(candidates_to_candidates)
    if to_query.dim() != 1 or among.shape != (len(to_query), len(to_query)):
        raise CoreError(
            f"Distances of the query have shape {tuple(to_query.shape)}, those among candidates {tuple(among.shape)}.",
            hint="Give (n,) and (n, n) for n candidates.",
        )
    matrix = among.new_zeros((len(among) + 1, len(among) + 1), dtype=torch.float32)
    matrix[0, 1:] = matrix[1:, 0] = to_query
    matrix[1:, 1:] = among
    return _rerank(read_matrix(matrix), 1, parameters).distances(0, 1)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Reranked:
    """Re-ranked distances of Q queries to G gallery images, made block by block when asked for."""

    original: Distances  # between all N images
    farthest: Tensor  # (N,) the largest original distance of every image
    encodings: Sparse  # (N, N) V'
    sharers: Sparse  # (N, G) the gallery's part of V', transposed: in whose encodings each image is
    first: int  # where the gallery begins among the N images
    weight: float

    def distances(self, start: int, stop: int) -> Tensor:
        """(stop - start, G) float32 of queries start to stop - 1, from 0 to 1, smaller is closer."""
        minima = sum_minima(self.encodings, self.sharers, start, stop, self.original.size - self.first)
        # Every encoding sums to 1, so the larger of two's entries sum to 2 less the smaller.
        jaccard = 1 - minima / (2 - minima)
        original = torch.empty_like(jaccard)
        self.original.fill(original, start, self.first)
        original /= self.farthest[start:stop, None]
        return jaccard.lerp_(original, self.weight).clamp_(0, 1)

    def scores(self, start: int, stop: int) -> Tensor:
        """1 - distances, so larger is closer: what `reid_core.evaluation.ranking.evaluate_scores` asks for."""
        return 1 - self.distances(start, stop)


def _rerank(
    original: Distances,
    first: int,
    parameters: Reciprocal,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reranked:
    neighbours = find_neighbours(original, parameters.k1, on_progress, should_stop)
    encodings = encode_neighbours(original, neighbours, round(parameters.k1 / 2), should_stop)
    averaged = expand_queries(encodings, neighbours.indices[:, : parameters.k2], should_stop)
    return Reranked(original, neighbours.farthest, averaged, averaged.transpose(first), first, parameters.weight)
