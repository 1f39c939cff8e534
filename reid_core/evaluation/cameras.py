"""Accuracy between each two cameras: queries of one, searched for among the gallery images of the other alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.labels import Integers


@dataclass(frozen=True, slots=True)
class CameraPair:
    """Accuracy of the queries of one camera that have a match on the other, from 0 to 1; cameras are codes."""

    query: int
    gallery: int
    mAP: float  # noqa: N815 - the field's name for it
    rank1: float
    valid_queries: int


def measure_camera_pairs(
    query_cameras: Integers, counts: Integers, cameras: Integers, camera_ranks: Integers
) -> list[CameraPair]:
    """The pairs of cameras that have a valid query, in the order of their codes.

    Args:
        query_cameras: (Q,) the camera of each query.
        counts: (Q,) how many matches it has, in all M.
        cameras: (M,) the camera of each match, query after query.
        camera_ranks: (M,) its rank from 1 among the images of that camera.
    """
    queries = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((camera_ranks, cameras, queries))
    queries, cameras, ranks = queries[order], cameras[order], camera_ranks[order]
    starts = np.flatnonzero(np.diff(queries, prepend=-1) | np.diff(cameras, prepend=-2))
    sizes = np.diff(starts, append=len(ranks))
    precision = (np.arange(len(ranks)) - np.repeat(starts, sizes) + 1) / ranks
    average_precision = np.add.reduceat(precision, starts) / sizes
    return _by_pair(query_cameras[queries[starts]], cameras[starts], average_precision, ranks[starts] == 1)


def _by_pair(
    query: Integers, gallery: Integers, average_precision: NDArray[np.float64], first: NDArray[np.bool_]
) -> list[CameraPair]:
    pairs, of_pair, valid = np.unique(np.stack([query, gallery], 1), axis=0, return_inverse=True, return_counts=True)
    precision, hits = (np.bincount(of_pair, weights=values) / valid for values in (average_precision, first))
    columns = (pairs[:, 0], pairs[:, 1], precision, hits, valid)
    return [CameraPair(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
