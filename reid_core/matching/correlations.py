"""The best correlation of every location, differentiable, without ever holding all correlations.

A block of correlations is made, reduced and overwritten while it is in cache. For the gradient only the places of
the maxima are kept, so the backward pass moves single vectors and multiplies no matrices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from reid_core.matching.cuda import best_correlations_cuda, is_available
from reid_core.matching.maps import Tile, block_width, check_maps, correlate, make_tiles
from reid_core.matching.threads import work_in_threads


def best_correlations(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """For every location of every query map its best correlation in every gallery map, and the other way round.

    Differentiable in both; among equal correlations the gradient goes to the first location. Where `query` and
    `gallery` are one tensor, half of the pairs are computed. Products are float32, also under autocast: rounded to
    bf16, many would be equal.

    Args:
        query, gallery: (Q, hq, c) and (G, hg, c) floating, on one device.

    Returns:
        (Q, G, hq), the best over gallery locations, and (Q, G, hg), the best over query locations; float64 for
        float64 input, else float32.

    Raises:
        CoreError: the shapes do not fit together.
    """
    check_maps(query, gallery)
    dtype = torch.promote_types(torch.promote_types(query.dtype, gallery.dtype), torch.float32)
    if query.is_cuda and dtype == torch.float32 and is_available():
        return best_correlations_cuda(query, gallery)
    if query is gallery:
        best: Tensor = _BestOfSelf.apply(query.to(dtype))  # type: ignore[no-untyped-call]
        return best, best.transpose(0, 1)
    rows, columns = _Best.apply(query.to(dtype), gallery.to(dtype))  # type: ignore[no-untyped-call]
    return rows, columns.transpose(0, 1)


class _Best(torch.autograd.Function):
    """Query and gallery to rows (Q, G, hq) and columns (G, Q, hg): both begin with the map whose locations count."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        found = _find(query, gallery, halved=False, with_places=any(ctx.needs_input_grad))
        ctx.save_for_backward(query, gallery, found.row_places, found.column_places)
        return found.rows, found.columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_rows: Tensor, d_columns: Tensor) -> tuple[Tensor | None, Tensor | None]:
        query, gallery, row_places, column_places = ctx.saved_tensors
        d_query, d_gallery = (
            torch.zeros_like(maps) if needed else None
            for maps, needed in zip((query, gallery), ctx.needs_input_grad, strict=True)
        )
        _route(d_rows, row_places, query, gallery, d_query, d_gallery)
        _route(d_columns, column_places, gallery, query, d_gallery, d_query)
        return d_query, d_gallery


class _BestOfSelf(torch.autograd.Function):
    """Maps to rows (N, N, hw); the columns are the rows of the same pair the other way round."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        found = _find(maps, maps, halved=True, with_places=any(ctx.needs_input_grad))
        ctx.save_for_backward(maps, found.row_places)
        return found.rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_rows: Tensor) -> Tensor:
        maps, places = ctx.saved_tensors
        d_maps = torch.zeros_like(maps)
        _route(d_rows, places, maps, maps, d_maps, d_maps)
        return d_maps


class _Found(NamedTuple):
    rows: Tensor  # (Q, G, hq)
    columns: Tensor  # (G, Q, hg); the rows again where only half was computed
    row_places: Tensor | None  # (Q, G, hq) int32, gallery locations
    column_places: Tensor | None  # (G, Q, hg) int32, query locations


def _find(query: Tensor, gallery: Tensor, *, halved: bool, with_places: bool) -> _Found:
    rows = query.new_empty(len(query), len(gallery), query.shape[1])
    columns = rows if halved else query.new_empty(len(gallery), len(query), gallery.shape[1])
    row_places = torch.empty_like(rows, dtype=torch.int32) if with_places else None
    column_places = row_places if halved or row_places is None else torch.empty_like(columns, dtype=torch.int32)

    def find_in_tile(tile: Tile) -> None:
        for one, several, block in correlate(query, gallery, tile, query.dtype):
            row_best, column_best = torch.amax(block, 1), torch.amax(block, 2)  # (n, hq), (n, hg)
            rows[one, several], columns[several, one] = row_best, column_best
            if row_places is not None and column_places is not None:
                row_places[one, several] = _first(block, row_best, 1)
                column_places[several, one] = _first(block, column_best, 2)

    width = block_width(query, gallery, query.dtype)
    for _ in work_in_threads(find_in_tile, make_tiles(query, gallery, width, halved=halved)):
        pass
    return _Found(rows, columns, row_places, column_places)


def _first(block: Tensor, best: Tensor, dim: int) -> Tensor:
    """The first place along `dim` that equals `best`.

    Three vectorised passes; `torch.max` with indices is a scalar loop and takes as long as the matrix product.
    """
    length = block.shape[dim]
    countdown = torch.arange(length, 0, -1, dtype=block.dtype, device=block.device)
    equal = torch.eq(block, best.unsqueeze(dim), out=torch.empty_like(block))
    countdowns = equal.mul_(countdown.unsqueeze(1) if dim == 1 else countdown).amax(dim)
    # NaN equals nothing: it stays NaN in `best`, and its place need only exist.
    return (length - countdowns).clamp_(max=length - 1)


def _route(
    grad: Tensor, places: Tensor, near: Tensor, far: Tensor, d_near: Tensor | None, d_far: Tensor | None
) -> None:
    """Adds the gradient of `near`'s best correlations, (A, B, h) at `places` in `far`, to both gradients.

    Args:
        near, far: (A, h, c) and (B, h', c).
    """
    offsets = far.shape[1] * torch.arange(len(far), dtype=places.dtype, device=far.device)
    for one in range(len(near)):
        flat = places[one] + offsets[:, None]  # (B, h)
        if d_near is not None:
            d_near[one] += functional.embedding_bag(
                flat.T, far.flatten(0, 1), per_sample_weights=grad[one].T, mode="sum"
            )
        if d_far is not None:
            d_far.flatten(0, 1).index_add_(0, flat.flatten(), (grad[one].unsqueeze(2) * near[one]).flatten(0, 1))
