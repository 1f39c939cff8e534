"""Examples that move a query: images of the same person, and of other people.

Rocchio's formula, with the weights of Manning, Raghavan and Schuetze 2008, "Introduction to Information Retrieval",
9.1.1: q + 0.75 mean(positive) - 0.15 mean(negative).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.search.fusion import unit

POSITIVE_WEIGHT = 0.75
NEGATIVE_WEIGHT = 0.15


@dataclass(frozen=True, slots=True)
class ExampleFiles:
    """Files of images that were sent as examples of a query."""

    positive: Sequence[bytes] = ()
    negative: Sequence[bytes] = ()


NO_EXAMPLES = ExampleFiles()


def steer(
    query: NDArray[np.float32], positive: NDArray[np.float32], negative: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(V, D) `query`, each row moved towards `positive` (P, D) and away from `negative` (N, D), of unit length.

    Either of the two may be empty. Raises the 422 problem where what is left has no direction.
    """
    moved = query.astype(np.float64)
    if len(positive):
        moved += POSITIVE_WEIGHT * positive.mean(axis=0)
    if len(negative):
        moved -= NEGATIVE_WEIGHT * negative.mean(axis=0)
    return unit(moved)
