"""Original distances between N images, a block of rows at a time: from embeddings, or from a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.errors import CoreError, Stopped

Array = Tensor | NDArray[Any]

BLOCK_DISTANCES = 2**23
"""Distances held at once: 32 MB, enough rows for a fast matrix product. Always whole rows."""

_PAIRS_AT_ONCE = 2**13


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Float32 distances between `size` images, made when asked for: smaller is closer; a 0 may round to below 0."""

    size: int
    device: torch.device
    fill: Callable[[Tensor, int, int], None]
    """(block, start, first): writes those of images start, start + 1, ... to images first, first + 1, ..."""
    pairs: Callable[[Tensor, Tensor], Tensor]
    """(P,), (P,) -> (P,): those of image rows[p] to image columns[p]."""


def read_embeddings(query: Array, gallery: Array) -> Distances:
    """Squared Euclidean distances between all images, queries first.

    Raises:
        CoreError: the embeddings are not of two dimensions, none, not finite, or of different size.
    """
    splits = {"query": torch.as_tensor(query), "gallery": torch.as_tensor(gallery)}
    for split, embeddings in splits.items():
        _check_embeddings(split, embeddings)
    if query.shape[1] != gallery.shape[1]:
        raise CoreError(
            f"Query embeddings have {query.shape[1]} dimensions, gallery embeddings {gallery.shape[1]}.",
            hint="Embed both with the same model.",
        )
    return _measure(torch.cat([embeddings.detach().float() for embeddings in splits.values()]))


def read_set(embeddings: Array) -> Distances:
    """Squared Euclidean distances between all images of one set (N, D). Raises CoreError as `read_embeddings`."""
    vectors = torch.as_tensor(embeddings)
    _check_embeddings("given", vectors)
    return _measure(vectors.detach().float())


def read_matrix(distances: Array) -> Distances:
    """Distances as given, but 0 of every image to itself.

    Raises:
        CoreError: the matrix is empty or not square, or a distance is negative or not finite.
    """
    matrix = torch.as_tensor(distances).detach()
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise CoreError(
            f"The distances to re-rank have shape {tuple(matrix.shape)}.",
            hint="Give a square matrix, row i with the distances of image i to all images.",
        )
    matrix = matrix.float().clone().fill_diagonal_(0)
    if not (matrix.amin() >= 0 and matrix.amax().isfinite()):
        raise CoreError(
            f"The distances to re-rank go from {float(matrix.amin())} to {float(matrix.amax())}.",
            hint="Give finite distances of 0 or more, smaller is closer; of QAConv scores 1 - sigmoid(score / 10).",
        )

    def fill(block: Tensor, start: int, first: int) -> None:
        block.copy_(matrix[start : start + block.shape[0], first : first + block.shape[1]])

    return Distances(len(matrix), matrix.device, fill, lambda rows, columns: matrix[rows, columns])


def read_stored(matrix: NDArray[np.float32]) -> Distances:
    """Distances of a square matrix that need not fit in memory, such as a memory map; 0 on its diagonal."""

    def fill(block: Tensor, start: int, first: int) -> None:
        part = matrix[start : start + block.shape[0], first : first + block.shape[1]]
        block.copy_(torch.from_numpy(np.array(part)))

    def pairs(rows: Tensor, columns: Tensor) -> Tensor:
        return torch.from_numpy(np.array(matrix[rows.numpy(), columns.numpy()]))

    return Distances(len(matrix), torch.device("cpu"), fill, pairs)


def split_rows(size: int, should_stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows of a (size, size) matrix. Raises Stopped when `should_stop` says so."""
    rows = rows_at_once(size)
    for start in range(0, size, rows):
        if should_stop():
            raise Stopped
        yield start, min(start + rows, size)


def rows_at_once(size: int) -> int:
    """Rows of the largest of these blocks."""
    return min(size, max(1, BLOCK_DISTANCES // size))


def _measure(vectors: Tensor) -> Distances:
    squares = vectors.square().sum(dim=1, keepdim=True)
    # |x|^2 + |y|^2 - 2xy as one product of (y, 1, |y|^2) and (-2x, |x|^2, 1): a block is gone through once, not three
    # times. Only the former is kept of all images.
    right = torch.cat([vectors, torch.ones_like(squares), squares], dim=1)

    def turn(rows: Tensor) -> Tensor:
        return torch.cat([-2 * rows[:, :-2], rows[:, -1:], rows[:, -2:-1]], dim=1)

    def fill(block: Tensor, start: int, first: int) -> None:
        rows, others = right[start : start + block.shape[0]], right[first : first + block.shape[1]]
        torch.mm(turn(rows), others.T, out=block)

    def measure_pairs(rows: Tensor, columns: Tensor) -> Tensor:
        parts = zip(rows.split(_PAIRS_AT_ONCE), columns.split(_PAIRS_AT_ONCE), strict=True)
        return torch.cat([(turn(right[some]) * right[others]).sum(dim=1) for some, others in parts])

    return Distances(len(vectors), vectors.device, fill, measure_pairs)


def _check_embeddings(split: str, embeddings: Tensor) -> None:
    if embeddings.dim() != 2 or not len(embeddings):
        raise CoreError(
            f"The {split} embeddings have shape {tuple(embeddings.shape)}.",
            hint="Give one row per image, and at least one image of each.",
        )
    # A sum is finite just when all its terms are, and a quarter of the time of looking at each.
    broken = (~embeddings.sum(dim=1, dtype=torch.float32).isfinite()).nonzero()
    if len(broken):
        raise CoreError(
            f"{len(broken)} of {len(embeddings)} {split} embeddings are not finite, the first in row {int(broken[0])}.",
            hint="The model's weights are damaged or its precision is too low; load it again or use fp32.",
        )
