"""k-reciprocal encodings: every image as weights of the images around it, and what two encodings share.

The steps and their equations stand in `reid_core.reranking.k_reciprocal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_core.reranking.distances import Distances, rows_at_once, split_rows

_SHARES_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """A matrix of few entries that are not 0: those of row r lie at starts[r] to starts[r + 1] - 1."""

    starts: Tensor
    columns: Tensor
    values: Tensor

    def count(self, rows: Tensor) -> Tensor:
        """Counts the entries of each of these rows."""
        return self.starts[rows + 1] - self.starts[rows]

    def find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of these rows: which of `rows`, counted from 0, each belongs to, and where it lies."""
        counts = self.count(rows)
        owners = torch.repeat_interleave(counts)
        shifts = self.starts[rows] - (counts.cumsum(0) - counts)
        return owners, shifts[owners] + torch.arange(len(owners), device=owners.device)

    def transpose(self, first: int) -> Sparse:
        """The rows from `first` on as columns."""
        begin = int(self.starts[first])
        rows, columns = torch.repeat_interleave(self.starts[first:].diff()), self.columns[begin:]
        order = columns.argsort(stable=True)
        return compress(len(self.starts) - 1, columns[order], rows[order], self.values[begin:][order])


def compress(height: int, rows: Tensor, columns: Tensor, values: Tensor) -> Sparse:
    """The matrix with these entries, given in the order of their rows."""
    ends = torch.bincount(rows, minlength=height).cumsum(0)
    return Sparse(torch.cat([ends.new_zeros(1), ends]), columns, values)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """N(i, k) of N images, in (N, k + 1); of fewer images, all of them."""

    indices: Tensor  # nearest first, but the image itself before all
    distances: Tensor  # to those; of the image to itself -inf
    farthest: Tensor  # (N,) the largest distance of every image, above 0


def find_neighbours(
    distances: Distances, k: int, on_progress: Callable[[int, int], None], should_stop: Callable[[], bool]
) -> Neighbours:
    """The k nearest others of every image."""
    size, count = distances.size, min(k + 1, distances.size)
    indices = torch.empty(size, count, dtype=torch.int64, device=distances.device)
    values, farthest = torch.empty(indices.shape, device=distances.device), torch.empty(size, device=distances.device)
    buffer = torch.empty(rows_at_once(size), size, device=distances.device)
    for start, stop in split_rows(size, should_stop):
        block = buffer[: stop - start]
        distances.fill(block, start, 0)
        farthest[start:stop] = block.amax(dim=1)
        block.diagonal(start).fill_(-torch.inf)  # before its duplicates
        indices[start:stop] = _find_nearest(block, count)
        values[start:stop] = block.gather(1, indices[start:stop])
        on_progress(stop, size)
    # Where all images are the same, every distance is to be 0 of the largest.
    return Neighbours(indices, values, farthest.clamp_(min=torch.finfo(torch.float32).tiny))


def encode_neighbours(
    distances: Distances, neighbours: Neighbours, inner_k: int, should_stop: Callable[[], bool]
) -> Sparse:
    """V of eq. 7: (N, N), every row sums to 1. `inner_k` is the k1 / 2 of eq. 4."""
    size = distances.size
    mutual, inner = _find_mutual(neighbours.indices, inner_k + 1, should_stop)
    rows, columns, values = [], [], []
    for start, stop in split_rows(size, should_stop):
        own = mutual[start:stop]
        own_rows, places = (own < size).nonzero(as_tuple=True)
        more_rows, more_columns = _find_more(own, inner, size)
        rows += [start + own_rows, start + more_rows]
        columns += [own[own_rows, places], more_columns]
        values += [neighbours.distances[start + own_rows, places], distances.pairs(start + more_rows, more_columns)]
    every_row = torch.cat(rows)
    weights = torch.exp(-torch.cat(values).clamp_(min=0) / neighbours.farthest[every_row])
    weights /= weights.new_zeros(size).index_add_(0, every_row, weights)[every_row]
    order = every_row.argsort(stable=True)
    return compress(size, every_row[order], torch.cat(columns)[order], weights[order])


def expand_queries(encodings: Sparse, nearest: Tensor, should_stop: Callable[[], bool]) -> Sparse:
    """V' of eq. 11: for every image the mean of the encodings of its nearest, (N, k2)."""
    size, k2 = nearest.shape
    keys, values = [], []
    for start, stop in split_rows(size, should_stop):
        owners, places = encodings.find(nearest[start:stop].flatten())
        found, targets = torch.unique((start + owners // k2) * size + encodings.columns[places], return_inverse=True)
        keys.append(found)
        values.append(
            torch.zeros_like(found, dtype=torch.float32).index_add_(0, targets, encodings.values[places] / k2)
        )
    every_key = torch.cat(keys)
    return compress(size, every_key // size, every_key % size, torch.cat(values))


def sum_minima(encodings: Sparse, sharers: Sparse, start: int, stop: int, width: int) -> Tensor:
    """(stop - start, width) sums of the smaller of two encodings' entries, those of rows start to stop - 1 and of each
    column of `sharers`. Visits only the entries that both have."""
    sums = encodings.values.new_zeros((stop - start) * width)
    begin, end = encodings.starts[start], encodings.starts[stop]
    rows = torch.repeat_interleave(encodings.starts[start : stop + 1].diff())
    columns, values = encodings.columns[begin:end], encodings.values[begin:end]
    ends = sharers.count(columns).cumsum(0)
    sizes = torch.unique_consecutive(ends // _SHARES_AT_ONCE, return_counts=True)[1].tolist()
    for some_rows, some_columns, some_values in zip(
        rows.split(sizes), columns.split(sizes), values.split(sizes), strict=True
    ):
        owners, places = sharers.find(some_columns)
        minima = torch.minimum(some_values[owners], sharers.values[places])
        sums.index_add_(0, (some_rows * width)[owners] + sharers.columns[places], minima)
    return sums.view(stop - start, width)


def _find_nearest(block: Tensor, count: int) -> Tensor:
    """(r, count) columns of the smallest in each row, equal ones by index."""
    values, columns = block.topk(min(count + 1, block.shape[1]), largest=False)  # one more, to see a tie at the end
    last = values[:, count - 1]
    for row in (last == values[:, count:].T).nonzero()[:, 1].tolist():
        nearer = int((values[row] < last[row]).sum())
        columns[row, nearer:count] = (block[row] == last[row]).nonzero()[: count - nearer, 0]
    columns = columns[:, :count].sort(dim=1).values
    return columns.gather(1, block.gather(1, columns).argsort(dim=1, stable=True))


def _find_mutual(nearest: Tensor, inner: int, should_stop: Callable[[], bool]) -> tuple[Tensor, Tensor]:
    """R(i, k1) in (N, k1 + 1) and R(i, k1 / 2) in (N + 1, inner), N for nobody. Nobody, in the last row, has nobody."""
    size, nobody = len(nearest), len(nearest)
    wide, narrow = [], []
    for start, stop in split_rows(size, should_stop):
        some = nearest[start:stop]
        returns = nearest[some] == torch.arange(start, stop, device=some.device)[:, None, None]  # (r, k1 + 1, k1 + 1)
        wide.append(some.where(returns.any(dim=2), nobody))
        narrow.append(some[:, :inner].where(returns[:, :inner, :inner].any(dim=2), nobody))
    narrow.append(torch.full_like(narrow[0][:1], nobody))
    return torch.cat(wide), torch.cat(narrow)


def _find_more(own: Tensor, inner: Tensor, nobody: int) -> tuple[Tensor, Tensor]:
    """Finds what eq. 4 adds to R(i, k1), `own`: rows and columns, each pair once."""
    theirs = inner[own]  # (r, k1 + 1, inner)
    marks = own.new_zeros((len(own), nobody + 1), dtype=torch.bool).scatter_(1, own, True)
    marks[:, nobody] = False
    shared, real = marks.gather(1, theirs.flatten(1)).view_as(theirs), theirs < nobody
    accepted = 3 * shared.sum(dim=2) > 2 * real.sum(dim=2)
    new = accepted[:, :, None] & real & ~shared
    keys = torch.unique(new.nonzero()[:, 0] * nobody + theirs[new])
    return keys // nobody, keys % nobody
