"""Embeddings without what each camera adds to all of its images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_IMAGES = 50
"""The fewest images of a camera whose mean is the camera's and not that of the few people before it."""


def centre_by_camera(embeddings: NDArray[np.float32], cameras: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings less the mean of their camera plus the mean of all, of unit length again.

    Cameras of fewer than `LEAST_IMAGES` images, and images of an unknown one (-1), stay as they are.

    Args:
        embeddings: (N, D) of unit length.
        cameras: (N,) codes.
    """
    centred, overall = embeddings.copy(), embeddings.mean(axis=0)
    for camera in np.unique(cameras[cameras >= 0]):
        of_camera = cameras == camera
        if of_camera.sum() >= LEAST_IMAGES:
            centred[of_camera] += overall - embeddings[of_camera].mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    normalised: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return normalised
