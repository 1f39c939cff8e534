"""Density clustering of a sparse graph of distances (Ester et al. 1996, DBSCAN)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reid_core.reranking.encoding import Sparse

NOISE = -1

Labels = NDArray[np.int64]


def cluster_by_density(graph: Sparse, threshold: float, least: int) -> Labels:
    """(N,) cluster of every image, numbered from 0 by their first images; NOISE of those in none.

    An image with `least` - 1 others or more within `threshold` is a core image. Core images within `threshold` of each
    other are of one cluster; another image is of that of its nearest core image within `threshold` (in DBSCAN, of the
    one that is visited first), the first of equally near ones.

    Args:
        graph: (N, N) symmetric distances, those above `threshold` may be missing, an image's own is.
    """
    size = len(graph.starts) - 1
    rows = np.repeat(np.arange(size), np.diff(graph.starts.numpy()))
    within = graph.values.numpy() <= threshold
    rows, columns, distances = rows[within], graph.columns.numpy()[within], graph.values.numpy()[within]
    is_core = np.bincount(rows, minlength=size) >= least - 1
    joined = is_core[rows] & is_core[columns]
    roots = np.where(is_core, connect(size, rows[joined], columns[joined]), NOISE)
    on_border = ~is_core[rows] & is_core[columns]
    rows, columns = rows[on_border], columns[on_border]
    order = np.lexsort((columns, distances[on_border], rows))
    border, first = np.unique(rows[order], return_index=True)
    roots[border] = roots[columns[order][first]]
    return number_by_first(roots)


def connect(size: int, rows: Labels, columns: Labels) -> Labels:
    """(size,) the smallest node that each node is connected to by the edges (E,), (E,), which go both ways."""
    roots = np.arange(size)
    while True:
        smallest = np.minimum(roots[rows], roots[columns])
        before = roots.copy()
        for nodes in (roots[rows], roots[columns]):
            np.minimum.at(roots, nodes, smallest)
        while (further := roots[roots]).tobytes() != roots.tobytes():
            roots = further
        if np.array_equal(before, roots):
            return roots


def number_by_first(roots: Labels) -> Labels:
    """The same groups numbered 0, 1, ... in the order of their first members; NOISE stays."""
    found, first, groups = np.unique(roots, return_index=True, return_inverse=True)
    named = np.flatnonzero(found != NOISE)
    numbers = np.full(len(found), NOISE)
    numbers[named[np.argsort(first[named])]] = np.arange(len(named))
    return numbers[groups]


def overlap(first: Labels, second: Labels) -> NDArray[np.float64]:
    """(N,) intersection over union of the two groups that an image is in; one of NOISE is alone in its group."""
    alone_first, alone_second = _set_noise_apart(first), _set_noise_apart(second)
    _pairs, places = np.unique(np.stack([alone_first, alone_second]), axis=1, return_inverse=True)
    both = np.bincount(places)[places]
    either = np.bincount(alone_first)[alone_first] + np.bincount(alone_second)[alone_second] - both
    shares: NDArray[np.float64] = both / either
    return shares


def _set_noise_apart(labels: Labels) -> Labels:
    apart = labels.copy()
    noise = np.flatnonzero(labels == NOISE)
    apart[noise] = labels.max(initial=NOISE) + 1 + np.arange(len(noise))
    return apart
