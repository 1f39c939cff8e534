"""Scores by a model's matcher of every query with every gallery image, from maps on disk, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.encoder import Encoder
from reid_core.retrieval.maps import MapStore

_FILES = 256
_GALLERY_BLOCK = 512
"""Maps in memory at once: 24 KiB each for 24 x 8 x 64 in half precision."""

_ABOVE_COSINES = 2.0


def encode_into(
    store: MapStore, encoder: Encoder, paths: Sequence[Path], on_progress: Callable[[int, int], None]
) -> Tensor:
    """Writes the files' maps to `store`, in their order; their embeddings (N, D)."""

    def encode(start: int) -> Tensor:
        def report(done: int, _: int) -> None:
            on_progress(start + done, len(paths))

        encoding = encoder.encode_files(paths[start : start + _FILES], with_maps=True, on_progress=report)
        if encoding.maps is not None:
            store.write(start, encoding.maps.flatten(1, 2).numpy())
        return encoding.embeddings

    return torch.cat([encode(start) for start in range(0, len(paths), _FILES)])


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Maps of Q queries and G gallery images, and what scores pairs of them.

    `should_stop` is asked often; True raises `Stopped`.
    """

    query: MapStore
    gallery: MapStore
    head: FoldedHead
    should_stop: Callable[[], bool]

    def score_all(self, start: int, stop: int) -> Tensor:
        """(stop - start, G) float32 scores of queries `start` up to `stop`, larger is closer."""
        query = self._read(self.query, np.arange(start, stop))
        blocks = [
            self._score(query, np.arange(first, min(first + _GALLERY_BLOCK, len(self.gallery))))
            for first in range(0, len(self.gallery), _GALLERY_BLOCK)
        ]
        return torch.cat(blocks, dim=1)

    def score_candidates(self, start: int, cosines: Tensor, count: int) -> Tensor:
        """`cosines` (n, G) of queries `start` to start + n - 1, but each query's `count` largest come first, in the
        order of the matcher's scores. Equal cosines are taken in the order of the gallery.

        Only the order of the values that come back means something.
        """
        ranked = cosines.clone()
        chosen = cosines.sort(dim=1, descending=True, stable=True).indices[:, :count]
        for row, positions in enumerate(chosen):
            query = self._read(self.query, np.array([start + row]))
            scores = self._score(query, positions.numpy())[0]
            # By their rank and not their value, which rounding could make equal to another when shifted.
            ranked[row, positions] = _ABOVE_COSINES + scores.unique(return_inverse=True)[1].float()
        return ranked

    def _score(self, query: Tensor, positions: np.ndarray) -> Tensor:
        return folded_scores(query, self._read(self.gallery, positions), self.head, should_stop=self.should_stop).cpu()

    def _read(self, store: MapStore, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(store.read(positions)).to(self.head.weights.device)
