"""Embeddings, maps and the matcher's scores of every query with every gallery image, on disk, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.encoder import Encoder
from reid_core.retrieval.maps import MapStore

_FILES = 256
_GALLERY_BLOCK = 512
"""Files and maps in memory at once: 24 KiB each for 24 x 8 x 64 in half precision."""

_TEMPERATURE = 10


def encode_into(
    path: Path,
    encoder: Encoder,
    paths: Sequence[Path],
    on_progress: Callable[[int, int], None],
    maps: MapStore | None = None,
) -> Tensor:
    """Writes the files' embeddings to a new file at `path`, and their maps to `maps` where given, a block at a time.

    Returns:
        (N, D) float32 embeddings in the order of `paths`, mapped from that file: memory that the system can take back.
    """
    stored = np.empty((0, 0), np.float32)
    for start in range(0, len(paths), _FILES):

        def report(done: int, _: int, start: int = start) -> None:
            on_progress(start + done, len(paths))

        block = encoder.encode_files(paths[start : start + _FILES], with_maps=maps is not None, on_progress=report)
        if start == 0:
            stored = np.memmap(path, np.float32, "w+", shape=(len(paths), block.embeddings.shape[1]))
        stored[start : start + _FILES] = block.embeddings.numpy()
        if maps is not None and block.maps is not None:
            maps.write(start, block.maps.flatten(1, 2).numpy())
    return torch.from_numpy(stored)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Maps of Q queries and G gallery images, and what scores pairs of them.

    `should_stop` is asked often; True raises `Stopped`. With `members` each query is several pictures, given by their
    positions in query + gallery maps; its scores are the means of theirs.
    """

    query: MapStore
    gallery: MapStore
    head: FoldedHead
    should_stop: Callable[[], bool]
    members: Sequence[Sequence[int]] | None = None

    def score_all(self, start: int, stop: int) -> Tensor:
        """(stop - start, G) float32 scores of queries `start` up to `stop`, larger is closer."""
        query, sizes = self._read_queries(range(start, stop))
        blocks = [
            _mean(self._score(query, np.arange(first, min(first + _GALLERY_BLOCK, len(self.gallery)))), sizes)
            for first in range(0, len(self.gallery), _GALLERY_BLOCK)
        ]
        return torch.cat(blocks, dim=1)

    def score_candidates(self, start: int, cosines: Tensor, count: int) -> Tensor:
        """(n, G) scores by the matcher of queries `start` to start + n - 1 for each one's `count` largest `cosines`.

        The others come after all of these, in the order of their cosines, by values that mean nothing else. Equal
        cosines are taken in the order of the gallery.
        """
        ranked = torch.empty_like(cosines)
        chosen = cosines.sort(dim=1, descending=True, stable=True).indices[:, :count]
        for row, positions in enumerate(chosen):
            query, sizes = self._read_queries([start + row])
            scores = _mean(self._score(query, positions.numpy()), sizes)[0]
            # By their rank and not their value, which rounding could make equal to another when shifted.
            ranked[row] = cosines[row].unique(return_inverse=True)[1] - len(self.gallery) + scores.min().floor()
            ranked[row, positions] = scores
        return ranked

    def write_distances(self, matrix: NDArray[np.float32], on_progress: Callable[[int, int], None]) -> None:
        """Fills (Q + G, Q + G) `matrix` with 1 - sigmoid(score / 10) of all images to each other, queries first.

        As the authors' code does before k-reciprocal re-ranking; smaller is closer, 0 to an image itself. Half of the
        pairs are scored, since the score is the same whichever of the two asks.
        """
        spans = [(first, min(first + _GALLERY_BLOCK, len(matrix))) for first in range(0, len(matrix), _GALLERY_BLOCK)]
        for row, (start, stop) in enumerate(spans):
            maps = self._read_joined(range(start, stop))
            for first, last in spans[row:]:
                others = maps if first == start else self._read_joined(range(first, last))
                scores = folded_scores(maps, others, self.head, should_stop=self.should_stop).cpu()
                distances = (1 - torch.sigmoid(scores / _TEMPERATURE)).numpy()
                matrix[start:stop, first:last] = distances
                matrix[first:last, start:stop] = distances.T
            on_progress(stop, len(matrix))
        np.fill_diagonal(matrix, 0)

    def _read_queries(self, queries: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The maps of these queries' pictures, and how many each has."""
        members = [[query] for query in queries] if self.members is None else [self.members[one] for one in queries]
        pictures = [position for positions in members for position in positions]
        return self._read_joined(pictures), [len(positions) for positions in members]

    def _read_joined(self, positions: Sequence[int]) -> Tensor:
        """The maps at these positions in query + gallery maps."""
        wanted, split = np.asarray(positions), len(self.query)
        is_query = wanted < split
        query, gallery = self.query.read(wanted[is_query]), self.gallery.read(wanted[~is_query] - split)
        maps = np.empty((len(wanted), *query.shape[1:]), query.dtype)
        maps[is_query], maps[~is_query] = query, gallery
        return torch.from_numpy(maps).to(self.head.weights.device)

    def _score(self, query: Tensor, positions: np.ndarray) -> Tensor:
        return folded_scores(query, self._read(self.gallery, positions), self.head, should_stop=self.should_stop).cpu()

    def _read(self, store: MapStore, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(store.read(positions)).to(self.head.weights.device)


def _mean(scores: Tensor, sizes: Sequence[int]) -> Tensor:
    """(n, G) means of the rows of each query, which has that many of them."""
    return torch.stack([part.mean(dim=0) for part in scores.split(list(sizes))])
