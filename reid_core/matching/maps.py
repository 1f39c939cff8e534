"""Feature maps as lists of locations, and their correlations a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_core.errors import CoreError

_BLOCK_BYTES = 4 * 2**20
"""Correlations per thread: few enough for its cache, enough for a fast matrix product."""

_DEVICE_BLOCK_BYTES = 256 * 2**20
_TILE_QUERIES = 64


def to_locations(feature_map: Tensor) -> Tensor:
    """(N, h * w, c), contiguous: the locations of (N, c, h, w) maps row by row, location y * w + x for (x, y)."""
    return feature_map.flatten(2).transpose(1, 2).contiguous()


def check_maps(query: Tensor, gallery: Tensor) -> None:
    """CoreError unless both hold maps (N, locations, channels) that can be compared."""
    for name, maps in (("query", query), ("gallery", gallery)):
        if maps.ndim != 3 or 0 in maps.shape[1:] or not maps.is_floating_point():
            raise CoreError(
                f"The {name} maps are {maps.dtype} of shape {tuple(maps.shape)}; floating (N, locations, channels), "
                "one or more of the last two, is needed.",
                hint="Pass feature maps through to_locations.",
            )
    if query.shape[2] != gallery.shape[2]:
        raise CoreError(
            f"The query maps have {query.shape[2]} channels, the gallery maps {gallery.shape[2]}.",
            hint="Compute both with the same model.",
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """Pairs of neighbouring queries with neighbouring galleries, positions from start up to stop.

    `halved` leaves out the pairs whose gallery position lies before the query's, for a matrix that is symmetric.
    """

    query: range
    gallery: range
    halved: bool

    def galleries(self, query: int) -> range:
        """The positions that are compared with the query at that position."""
        return range(max(self.gallery.start, query), self.gallery.stop) if self.halved else self.gallery


def block_width(query: Tensor, gallery: Tensor, dtype: torch.dtype) -> int:
    """So many galleries' correlations with one query, as `dtype`, fit a cache; for (Q, hq, c) and (G, hg, c) maps."""
    room = _DEVICE_BLOCK_BYTES if query.is_cuda else _BLOCK_BYTES
    return max(1, room // max(1, query.shape[1] * gallery.shape[1] * dtype.itemsize))


def make_tiles(query: Tensor, gallery: Tensor, width: int, *, halved: bool) -> Iterator[Tile]:
    """All pairs of the maps, at most `width` galleries in a tile."""
    for left in range(0, len(gallery), width):
        columns = range(left, min(left + width, len(gallery)))
        num_queries = columns.stop if halved else len(query)
        for top in range(0, num_queries, _TILE_QUERIES):
            yield Tile(range(top, min(top + _TILE_QUERIES, num_queries)), columns, halved)


def correlate(query: Tensor, gallery: Tensor, tile: Tile, dtype: torch.dtype) -> Iterator[tuple[int, slice, Tensor]]:
    """The correlations of a tile's pairs, converted to `dtype` as they are needed, one query at a time.

    Yields:
        The query's position, the galleries' positions and their correlations (n, hg, hq), overwritten by the next.
    """
    maps = gallery[tile.gallery.start : tile.gallery.stop].to(dtype)
    block = query.new_empty((len(maps) * gallery.shape[1], query.shape[1]), dtype=dtype)
    for position in tile.query:
        compared = tile.galleries(position)
        locations = maps[-len(compared) :].flatten(0, 1)  # (n * hg, c)
        correlations = torch.mm(locations, query[position].to(dtype).T, out=block[: len(locations)])
        yield position, slice(compared.start, compared.stop), correlations.unflatten(0, (len(compared), -1))
