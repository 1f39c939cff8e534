"""Pairwise precision and recall: how far clusters agree with identities, pair of images by pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.clustering.density import NOISE


@dataclass(frozen=True, slots=True)
class Pairwise:
    """The pairs of images that are in one cluster, of one identity, and both.

    Attributes:
        precision: share of the pairs of a cluster that are of one identity; None without a pair.
        recall: share of the pairs of an identity that are in one cluster; None without a pair.
    """

    clustered: int
    matching: int
    both: int

    @property
    def precision(self) -> float | None:
        return self.both / self.clustered if self.clustered else None

    @property
    def recall(self) -> float | None:
        return self.both / self.matching if self.matching else None

    @property
    def f1(self) -> float:
        """2 both / (clustered + matching), 0 to 1; 1 where there is no pair at all."""
        return 2 * self.both / (self.clustered + self.matching) if self.clustered + self.matching else 1.0


def compare_pairs(clusters: NDArray[np.int64], identities: NDArray[np.int64]) -> Pairwise:
    """Counts the pairs of N images, (N,) clusters and (N,) identities; an image left alone is in no cluster's pair."""
    inside = clusters != NOISE
    both = np.unique(np.stack([clusters[inside], identities[inside]]), axis=1, return_counts=True)[1]
    clustered, matching = (np.unique(codes, return_counts=True)[1] for codes in (clusters[inside], identities))
    return Pairwise(*(int((counts * (counts - 1) // 2).sum()) for counts in (clustered, matching, both)))
