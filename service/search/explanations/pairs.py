"""Explanations as pairs of places, in pixels of both images, that made these match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.matching import best_correlations, correspondences
from service.search.encoding import Matching, Size
from service.search.rerank import score_pairs

CORRESPONDENCES = 16
"""The most correspondences of a result: more cannot be told apart in a drawing."""

Pixel = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PlacePair:
    """A place (x, y) of the query and the place of the match that it corresponds to.

    `similarity` is from -1 to 1, `added` what the pair adds to the matcher's score before that is made a probability.
    """

    query: Pixel
    match: Pixel
    similarity: float
    added: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The pairs that carried the score, of the query's image number `image` from 0.

    First those of places that are each other's most similar one, then others; of either those that add most first.
    """

    image: int
    pairs: tuple[PlacePair, ...]


def explain(matching: Matching, match: Tensor, match_size: Size) -> Explanation:
    """Explains why local features `match` (h * w, c) fit the query's image that is closest to them."""
    match = match.to(matching.maps.device)
    image = 0 if len(matching.maps) == 1 else int(score_pairs(matching, match[None]).argmax())
    found = correspondences(matching.maps[image], match, matching.head, count=CORRESPONDENCES)
    pairs = [
        PlacePair(
            _centre(pair.query_location, matching.grid, matching.sizes[image]),
            _centre(pair.gallery_location, matching.grid, match_size),
            round(pair.similarity, 4),
            pair.added,
        )
        for pair in found
    ]
    return Explanation(image, tuple(pairs))


def contributions(matching: Matching, match: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The share (h, w) of the score that every location of the query's only image adds, and the same of `match`."""
    with torch.no_grad():
        best = best_correlations(matching.maps, match[None].to(matching.maps.device))
    query, other = ((matching.head.weights * maxima[0, 0]).cpu().numpy().reshape(matching.grid) for maxima in best)
    return query, other


def _centre(location: int, grid: Size, size: Size) -> Pixel:
    """The middle of a location's cell; locations count row by row."""
    row, column = divmod(location, grid[1])
    return round((column + 0.5) * size[0] / grid[1], 1), round((row + 0.5) * size[1] / grid[0], 1)
