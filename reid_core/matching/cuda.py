"""The matcher on NVIDIA cards: fused Triton kernels make, reduce and forget a tile of correlations at a time.

fp16 and bf16 maps are multiplied on the tensor cores, float32 maps in plain float32; sums are float32. Triton is
imported by the first call. With TRITON_INTERPRET=1 in the environment the kernels take CPU tensors, for checks without
a card.

What bounds folded scores on Hopper: a pair of 24 x 8 x 64 maps needs 1,150 cycles of the tensor cores and, in its 1,450
instructions per warp, 1,380 cycles of the units that take maxima. Hence the launch: programs of one warp group, small
enough (76 KiB, under 168 registers) for three to a multiprocessor, so that products of one run under maxima of another.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from reid_core.errors import CoreError
from reid_core.matching.maps import check_maps

_BLOCK = 64
"""Positions in a tile: 24 x 8 = 3 x 64, one warp group multiplies 64 rows at a time."""

_MAX_CHUNK = 256
"""Gallery maps a program streams past its query map: loading that one costs no time then, and 256 fit the L2 cache."""

_NUM_PROGRAMS = 2048
"""Programs to aim for where there is little work: several for every place on the largest cards."""

_SCRATCH_BYTES = 5 * 1024
"""Shared memory that a program needs beside maps: 1 KiB for the driver, and what the reductions exchange."""

_MAXIMA_BYTES = 256 * 2**20
"""Maxima held at a time where scores are made from them."""


def is_available() -> bool:
    """True where these kernels can match CUDA tensors."""
    return torch.cuda.is_available() and not _missing_requirement()


def best_correlations_cuda(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """For every location of every query map its best correlation in every gallery map, and the other way round.

    Differentiable in both, once; among equal correlations the gradient goes to the first location. Equal inputs give
    equal bits, in both passes: nothing is added atomically. Where `query` and `gallery` are one tensor, half of the
    pairs are computed.

    Args:
        query, gallery: (Q, hq, c) and (G, hg, c) float32, float16 or bfloat16, on one CUDA device, any strides.

    Returns:
        (Q, G, hq), the best over gallery locations, and (Q, G, hg), the best over query locations; float32.

    Raises:
        CoreError: the maps do not fit together, or the kernels cannot run here.
    """
    _check(query, gallery)
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    if dtype == torch.float64:
        raise CoreError("The CUDA kernels do not take float64 maps.", hint="Use reid_core.matching.best_correlations.")
    if query is gallery:
        rows: Tensor = _BestOfSelf.apply(_lay_out(query, dtype))  # type: ignore[no-untyped-call]
        return rows, rows.transpose(0, 1)
    rows, cols = _Best.apply(_lay_out(query, dtype), _lay_out(gallery, dtype))  # type: ignore[no-untyped-call]
    return rows, cols.transpose(0, 1)


@torch.no_grad()
def folded_scores_cuda(query: Tensor, gallery: Tensor, weights: Tensor, bias: float) -> Tensor:
    """(Q, G) float32 scores sum_r w_r (row_max_r + col_max_r) + b; larger is closer. No gradient.

    float16 and bfloat16 maps of up to 256 locations and 128 channels are scored by one kernel, half of the pairs where
    `query` and `gallery` are one tensor. Other maps go through their maxima, which takes several times as long.

    Args:
        query, gallery: (Q, hw, c) and (G, hw, c) floating, on one CUDA device, any strides.
        weights: (hw,).

    Raises:
        CoreError: the maps or weights do not fit together, or the kernels cannot run here.
    """
    _check(query, gallery)
    if not query.shape[1] == gallery.shape[1] == len(weights):
        raise CoreError(
            f"There are {len(weights)} weights; the query maps have {query.shape[1]} locations, the gallery maps "
            f"{gallery.shape[1]}.",
            hint="Compute both with the head's own model.",
        )
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    dtype = torch.float32 if dtype == torch.float64 else dtype
    own = _lay_out(query, dtype)
    theirs = own if query is gallery else _lay_out(gallery, dtype)
    weights = weights.to(own.device, torch.float32).contiguous()
    stages = _count_stages(own)
    if not stages:
        return _score_by_maxima(own, theirs, weights, bias)
    return _score_pairs(own, theirs, weights, bias, stages)


class _Best(torch.autograd.Function):
    """Query and gallery to rows (Q, G, hq) and columns (G, Q, hg)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        rows, row_places, cols, col_places = _find_maxima(query, gallery)
        ctx.save_for_backward(query, gallery, row_places, col_places)
        return rows, cols

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, row_grad: Tensor, col_grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        query, gallery, row_places, col_places = ctx.saved_tensors
        for_query, for_gallery = ctx.needs_input_grad
        rows, cols = (row_grad, row_places), (col_grad, col_places)
        return (
            _route_gradient(rows, cols, gallery) if for_query else None,
            _route_gradient(cols, rows, query) if for_gallery else None,
        )


class _BestOfSelf(torch.autograd.Function):
    """Maps to rows (N, N, hw); the columns are the rows of the same pair the other way round."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        rows, places, _, _ = _find_maxima(maps, maps)
        ctx.save_for_backward(maps, places)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        maps, places = ctx.saved_tensors
        return _route_gradient((grad, places), (grad, places), maps)


def _find_maxima(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows (Q, G, hq), columns (G, Q, hg), each followed by its places; for one and the same tensor, both are one."""
    (num_queries, num_rows, channels), (num_galleries, num_cols, _) = query.shape, gallery.shape
    symmetric = query is gallery
    places = torch.int16 if max(num_rows, num_cols) <= 2**15 else torch.int32
    rows = query.new_empty(num_queries, num_galleries, num_rows, dtype=torch.float32)
    cols = rows if symmetric else query.new_empty(num_galleries, num_queries, num_cols, dtype=torch.float32)
    row_places = torch.empty_like(rows, dtype=places)
    col_places = row_places if symmetric else torch.empty_like(cols, dtype=places)
    if rows.numel():
        with torch.cuda.device_of(query):
            _kernels().find_maxima[(num_queries * num_galleries,)](
                *(query, gallery, rows, row_places, cols, col_places),
                *(num_queries, num_galleries, num_rows, num_cols, channels),
                row_blocks=_round_up(-(-num_rows // _BLOCK)),
                block=_BLOCK,
                depth=min(channels, 64),
                symmetric=symmetric,
            )
    return rows, row_places, cols, col_places


def _route_gradient(own: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], their_maps: Tensor) -> Tensor:
    """The gradient of one side's maps, like them in type.

    Args:
        own, theirs: gradients and places of this side's maxima (own, others, rows) and the other's (others, own, cols).
    """
    (grad, places), (their_grad, their_places) = own, theirs
    (num_own, num_others, num_rows), (_, num_cols, channels) = grad.shape, their_maps.shape
    if not grad.numel():
        return their_maps.new_zeros(num_own, num_rows, channels)
    blocks, depth = -(-num_rows // _BLOCK), min(channels, 64)
    num_parts = max(1, _NUM_PROGRAMS // (num_own * blocks * (channels // depth)))
    share = -(-num_others // num_parts)
    grid = (num_own * blocks, channels // depth, -(-num_others // share))
    gradient = grad.new_empty(grid[2], num_own, num_rows, channels)
    with torch.cuda.device_of(grad):
        _kernels().route_gradient[grid](
            *(their_maps, grad.contiguous(), places, their_grad.contiguous(), their_places, gradient),
            *(num_own, num_others, num_rows, num_cols, channels, share),
            block=_BLOCK,
            depth=depth,
            # tf32 holds every fp16 and bf16 number, and gradients rounded to it keep their range.
            precision="ieee" if their_maps.dtype == torch.float32 else "tf32",
        )
    return gradient.sum(0).to(their_maps.dtype)


def _score_pairs(query: Tensor, gallery: Tensor, weights: Tensor, bias: float, stages: int) -> Tensor:
    (num_queries, positions, channels), num_galleries = query.shape, len(gallery)
    scores = query.new_empty(num_queries, num_galleries, dtype=torch.float32)
    if scores.numel():
        chunk = min(max(scores.numel() // _NUM_PROGRAMS, 1), _MAX_CHUNK)
        with torch.cuda.device_of(query):
            _kernels().score_pairs[(num_queries * -(-num_galleries // chunk),)](
                *(query, gallery, weights, bias, scores, num_queries, num_galleries, chunk),
                positions=positions,
                channels=channels,
                block=_BLOCK,
                stages=stages,
                symmetric=query is gallery,
                num_warps=4,
            )
    return scores


def _score_by_maxima(query: Tensor, gallery: Tensor, weights: Tensor, bias: float) -> Tensor:
    # Two directions, four bytes of value and at most four of place.
    num_queries = max(1, _MAXIMA_BYTES // max(16 * len(gallery) * query.shape[1], 1))
    scores = query.new_empty(len(query), len(gallery), dtype=torch.float32)
    for start in range(0, len(query), num_queries):
        rows, _, cols, _ = _find_maxima(query[start : start + num_queries], gallery)
        scores[start : start + num_queries] = rows @ weights + (cols @ weights).T
    return scores.add_(bias)


def _count_stages(maps: Tensor) -> int:
    """Gallery maps that `score_pairs` can keep in flight beside the query map; 0 for maps that it does not take."""
    _, positions, channels = maps.shape
    blocks = -(-positions // _BLOCK)
    if maps.dtype == torch.float32 or blocks > 4 or channels > 128:
        return 0
    if not maps.is_cuda:
        return 2
    room = torch.cuda.get_device_properties(maps.device).shared_memory_per_multiprocessor
    map_bytes = blocks * _BLOCK * channels * maps.itemsize
    return max(0, min(2, (room - _SCRATCH_BYTES) // map_bytes - 1))


def _lay_out(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous maps with zero channels added up to a power of two from 16 to 128, or a multiple of 128."""
    channels = maps.shape[2]
    wanted = max(16, _round_up(channels)) if channels <= 128 else -(-channels // 128) * 128
    maps = maps.to(dtype)
    return (functional.pad(maps, (0, wanted - channels)) if wanted > channels else maps).contiguous()


def _round_up(number: int) -> int:
    """The next power of two."""
    return 1 << max(number - 1, 0).bit_length()


def _check(query: Tensor, gallery: Tensor) -> None:
    if lack := _missing_requirement():
        raise CoreError(
            f"The CUDA matcher cannot run here: {lack}.", hint="Use reid_core.matching, which does without it."
        )
    check_maps(query, gallery)
    if query.device != gallery.device:
        raise CoreError(
            f"The query maps are on {query.device}, the gallery maps on {gallery.device}.", hint="Move one of them."
        )
    if not (query.is_cuda or _interprets()):
        raise CoreError(
            f"The CUDA kernels got maps on {query.device}.", hint="Call reid_core.matching's own functions instead."
        )
    if 0 in (query.shape[1], gallery.shape[1]):
        raise CoreError(
            f"The query maps have {query.shape[1]} locations, the gallery maps {gallery.shape[1]}; each needs one."
        )


def _kernels() -> Any:
    from reid_core.matching import cuda_kernels  # late: Triton is not everywhere

    return cuda_kernels


def _missing_requirement() -> str:
    """Names the first requirement that this machine does not meet; "" where it meets all."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if _interprets():
        return ""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} is older than compute capability 8.0"
    # Triton compiles its launcher with it, when a kernel runs for the first time.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "there is no C compiler (gcc, clang or $CC)"
    return ""


def _interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
