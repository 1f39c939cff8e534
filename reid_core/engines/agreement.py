"""Agreement of encoders: the largest distance of what they make of the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reid_core.data.preprocessing import open_image
from reid_core.retrieval.encoder import Encoder, Encoding

LIMIT = 1e-3
"""The largest distance between both embeddings of an image, or both vectors of a location: cosines agree to 0.002."""

ImageSource = Path | Image.Image
"""A file, or an image that is decoded."""

_BATCHES = (1, 5)
"""Sizes that images are compared in: a file that was traced for one size fails in another."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest distance (smaller is closer) of an exported file from the model in float32, over so many images."""

    pictures: int
    embeddings: float
    maps: float | None

    @property
    def farthest(self) -> float:
        """The larger distance of both; NaN where either is."""
        return float(np.max([self.embeddings, self.maps or 0.0]))


def compare(
    wanted: Encoder,
    others: Sequence[Encoder],
    images: Sequence[ImageSource],
    *,
    with_maps: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Agreement]:
    """Compares each of the `others` with `wanted` on at least one image; the agreement of each, in their order.

    Args:
        on_progress: gets (images compared, images in all).
    """
    distances = [(list[float](), list[float]()) for _ in others]
    done = 0
    for size in cycle(_BATCHES):
        part = [wanted.prepare(_opened(image)) for image in images[done : done + size]]
        if not part:
            break
        prepared = torch.stack(part)
        right = wanted.encode_prepared(prepared, with_maps=with_maps)
        for encoder, (embeddings, maps) in zip(others, distances, strict=True):
            found = encoder.encode_prepared(prepared, with_maps=with_maps)
            embeddings += (found.embeddings - right.embeddings).norm(dim=1).tolist()
            maps += _map_distances(found, right)
        done += len(part)
        on_progress(done, len(images))
    return [
        Agreement(done, float(np.max(embeddings)), float(np.max(maps)) if maps else None)
        for embeddings, maps in distances
    ]


def _opened(image: ImageSource) -> Image.Image:
    return open_image(image) if isinstance(image, Path) else image


def _map_distances(found: Encoding, right: Encoding) -> list[float]:
    if found.maps is None or right.maps is None:
        return []
    distances: list[float] = (found.maps - right.maps).norm(dim=3).flatten().tolist()
    return distances
