"""Graph sampling: batches of a class and its nearest classes (Liao and Shao 2022, section 4.2 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from reid_core.errors import CoreError
from reid_core.sampling import Draw, Graph
from reid_core.settings import IdentityBatch

Measure = Callable[[Sequence[int]], NDArray[np.float32]]
"""(C picture indices) -> (C, C) distances between them, smaller is closer, by any measure, re-ranked or not."""


def draw_graph_batches(
    identities: NDArray[np.int64], batch: IdentityBatch, measure: Measure, generator: np.random.Generator
) -> Draw:
    """One epoch: every class is once the centre of a batch of P classes with K pictures each, centre last.

    One picture at random stands for each class. With fewer than P classes a batch holds them all and is smaller. The
    pictures of a class are dealt from a shuffled pile that is shuffled anew when it runs out, so all are drawn before
    one returns; no picture comes twice in a batch, except that a class with fewer than K pictures repeats them.

    Args:
        identities: (N,) class codes 0..C-1, one per picture.

    Raises:
        CoreError: the distances are not (C, C) or not finite.
    """
    members = [np.flatnonzero(identities == code) for code in range(int(identities.max()) + 1)]
    graph = _build_graph([int(generator.choice(pictures)) for pictures in members], batch.identities - 1, measure)
    piles = [_Pile(pictures, generator) for pictures in members]
    batches = []
    for centre in generator.permutation(len(members)).tolist():
        classes = [*graph.neighbours[centre].tolist(), centre]
        batches.append([picture for code in classes for picture in piles[code].deal(batch.images_per_identity)])
    return Draw((batches,), graph)


def _build_graph(pictures: Sequence[int], num_neighbours: int, measure: Measure) -> Graph:
    distances = np.array(measure(pictures), dtype=np.float32)
    count = len(pictures)
    if distances.shape != (count, count) or not np.isfinite(distances).all():
        raise CoreError(
            f"The graph needs finite distances of shape {(count, count)}, got {distances.shape}.",
            hint="The network may have diverged; lower settings.schedule.base_lr.",
        )
    np.fill_diagonal(distances, np.inf)
    # Stable: equal distances rank by class.
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(num_neighbours, count - 1)]
    return Graph(np.array(pictures), nearest, np.take_along_axis(distances, nearest, axis=1))


class _Pile:
    def __init__(self, pictures: NDArray[np.int64], generator: np.random.Generator) -> None:
        self._pictures, self._generator = pictures, generator
        self._left: list[int] = []

    def deal(self, count: int) -> list[int]:
        if len(self._pictures) < count:
            repeats = -(-count // len(self._pictures))
            return [picture for _ in range(repeats) for picture in self._shuffled()][:count]
        dealt, self._left = self._left[:count], self._left[count:]
        if len(dealt) < count:
            pile = self._shuffled()
            fresh = [picture for picture in pile if picture not in dealt][: count - len(dealt)]
            dealt += fresh
            self._left = [picture for picture in pile if picture not in fresh]
        return dealt

    def _shuffled(self) -> list[int]:
        return [int(picture) for picture in self._generator.permutation(self._pictures)]
