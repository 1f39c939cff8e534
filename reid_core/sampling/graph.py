"""Graph sampling: batches of a class and its nearest classes (Liao and Shao 2022, section 4.2 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from reid_core.errors import CoreError
from reid_core.sampling import Draw, Graph
from reid_core.settings import IdentityBatch

Measure = Callable[[Sequence[int]], NDArray[np.float32]]
"""(C image indices) -> (C, C) distances between them, smaller is closer, by any measure, re-ranked or not."""


def draw_graph_batches(
    identities: NDArray[np.int64], batch: IdentityBatch, measure: Measure, generator: np.random.Generator
) -> Draw:
    """One epoch: every class is once the centre of a batch of P classes with K images each, centre last.

    One image at random stands for each class. With fewer than P classes a batch holds them all and is smaller. The
    images of a class are dealt from a shuffled pile that is shuffled anew when it runs out, so all are drawn before
    one returns; no image comes twice in a batch, except that a class with fewer than K images repeats them.

    Args:
        identities: (N,) class codes 0..C-1, one per image.

    Raises:
        CoreError: the distances are not (C, C) or not finite.
    """
    members = [np.flatnonzero(identities == code) for code in range(int(identities.max()) + 1)]
    graph = _build_graph([int(generator.choice(images)) for images in members], batch.identities - 1, measure)
    piles = [_Pile(images, generator) for images in members]
    batches = []
    for centre in generator.permutation(len(members)).tolist():
        classes = [*graph.neighbours[centre].tolist(), centre]
        batches.append([image for code in classes for image in piles[code].deal(batch.images_per_identity)])
    return Draw((batches,), graph)


def _build_graph(images: Sequence[int], num_neighbours: int, measure: Measure) -> Graph:
    distances = np.array(measure(images), dtype=np.float32)
    count = len(images)
    if distances.shape != (count, count) or not np.isfinite(distances).all():
        raise CoreError(
            f"The graph needs finite distances of shape {(count, count)}, got {distances.shape}.",
            hint="The network may have diverged; lower settings.schedule.base_lr.",
        )
    np.fill_diagonal(distances, np.inf)
    # Stable: equal distances rank by class.
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(num_neighbours, count - 1)]
    return Graph(np.array(images), nearest, np.take_along_axis(distances, nearest, axis=1))


class _Pile:
    def __init__(self, images: NDArray[np.int64], generator: np.random.Generator) -> None:
        self._images, self._generator = images, generator
        self._left: list[int] = []

    def deal(self, count: int) -> list[int]:
        if len(self._images) < count:
            repeats = -(-count // len(self._images))
            return [image for _ in range(repeats) for image in self._shuffled()][:count]
        dealt, self._left = self._left[:count], self._left[count:]
        if len(dealt) < count:
            pile = self._shuffled()
            fresh = [image for image in pile if image not in dealt][: count - len(dealt)]
            dealt += fresh
            self._left = [image for image in pile if image not in fresh]
        return dealt

    def _shuffled(self) -> list[int]:
        return [int(image) for image in self._generator.permutation(self._images)]
