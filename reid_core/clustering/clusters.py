"""Clusters of images by k-reciprocal Jaccard distances and density, with a confidence each.

The clustering of SpCL (Ge et al. 2020, "Self-paced Contrastive Learning with Hybrid Memory for Domain Adaptive Object
Re-ID", arXiv:2006.02713): DBSCAN on Jaccard distances. Its measures of a cluster's reliability (section 3.2) are the
confidence: independence, how far the cluster is the same with a looser threshold, times compactness, with a stricter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.clustering.cameras import centre_by_camera
from reid_core.clustering.density import NOISE, cluster_by_density, overlap
from reid_core.clustering.distances import measure_jaccard
from reid_core.errors import CoreError
from reid_core.reranking.k_reciprocal import Reciprocal

LEFT_ALONE = NOISE
"""The cluster of an image that is in none."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """The settings of clustering.

    Attributes:
        threshold: two images of a cluster are connected by Jaccard distances up to this, 0 to 1 exclusive.
        least: the fewest images around which a cluster grows, that image among them; 2 or more.
        margin: confidence compares with the thresholds this much looser and stricter.
        k1, k2: as in `Reciprocal`.

    The paper has 0.6, 4, 0.02, 30 and 6, for data sets of more images a person. Of those tried, the defaults here have
    the best mean F1 of pairs on training people of drawn worlds and of PKU-Reid (`benchmarks.unlabelled --choose`).

    Raises:
        CoreError: a number is out of range.
    """

    threshold: float = 0.4
    least: int = 2
    margin: float = 0.05
    k1: int = 15
    k2: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.margin < self.threshold < 1 - self.margin:
            raise CoreError(
                f"Clustering was given a threshold of {self.threshold} with a margin of {self.margin}.",
                hint=f"Use a threshold above {self.margin} and below {1 - self.margin}.",
            )
        if self.least < 2:
            raise CoreError(
                f"Clustering was given {self.least} as the fewest images of a cluster.", hint="Use 2 or more."
            )
        Reciprocal(self.k1, self.k2)  # raises


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Clusters of N images.

    Attributes:
        labels: (N,) int64 cluster of every image, from 0 in the order of their first images; LEFT_ALONE of those that
            are in none.
        confidence: (C,) of every cluster, above 0 to 1: the mean over its images; 1 where it stays the same with a
            threshold a little looser and a little stricter.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.confidence)


def cluster_embeddings(
    embeddings: NDArray[np.float32],
    settings: Clustering | None = None,
    *,
    cameras: NDArray[np.int64] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Clusters:
    """Groups images of one person each, as far as that is sure; the same embeddings give the same clusters.

    Args:
        embeddings: (N, D) float32 of unit length; N may be 0.
        settings: the defaults where left out.
        cameras: (N,) codes of the cameras, -1 where unknown; with them every camera's own mean is taken off first
            (`centre_by_camera`), which is what a camera makes of everybody.
        on_progress: gets (images done, images in all) while neighbours are sought.
        should_stop: asked before every block; True raises `Stopped`.

    Raises:
        CoreError: the embeddings are not of two dimensions or not finite.
        Stopped: `should_stop` said so.
    """
    settings = settings or Clustering()
    if not len(embeddings):
        return Clusters(np.empty(0, np.int64), np.empty(0))
    if cameras is not None:
        embeddings = centre_by_camera(embeddings, cameras)
    loose, strict = settings.threshold + settings.margin, settings.threshold - settings.margin
    graph = measure_jaccard(embeddings, Reciprocal(settings.k1, settings.k2), loose, on_progress, should_stop)
    labels = cluster_by_density(graph, settings.threshold, settings.least)
    independence, compactness = (
        overlap(labels, cluster_by_density(graph, other, settings.least)) for other in (loose, strict)
    )
    inside = labels != LEFT_ALONE
    sums = np.bincount(labels[inside], weights=(independence * compactness)[inside])
    return Clusters(labels, sums / np.bincount(labels[inside]))
