"""Vectors of any length as unit vectors, by which galleries compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_directions(vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`vectors` (N, D) scaled to unit length, float32, and (N,) whether each has a direction.

    A vector that is zero or not finite has none; it becomes zeros.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    has_direction = np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)
    # Scaled first, so that the squares of very large or small numbers are numbers.
    scaled = np.zeros(vectors.shape, np.float64)
    np.divide(vectors, largest, out=scaled, where=has_direction[:, None])
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, lengths, out=scaled, where=lengths > 0).astype(np.float32), has_direction
