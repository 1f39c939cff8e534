"""Scores of a folded head: a block of correlations is reduced to one number per pair while it is in cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from reid_core.devices import has_bf16_units
from reid_core.errors import Stopped
from reid_core.matching.cpu_kernels import add_maxima, tile_width
from reid_core.matching.cpu_kernels import is_available as is_compiled_for_this_cpu
from reid_core.matching.cuda import folded_scores_cuda, is_available
from reid_core.matching.head import FoldedHead
from reid_core.matching.maps import Tile, block_width, check_maps, correlate, make_tiles
from reid_core.matching.threads import work_in_threads

Products = Literal["auto", "fp32", "int16", "bf16"]
"""What correlations are computed in. "auto": bf16 on CPUs with AMX or AVX512-BF16, int16 on those with AVX2 for more
than one query, else fp32. Sums are exact for int16, else fp32.
"""


def folded_scores(
    query: Tensor,
    gallery: Tensor,
    head: FoldedHead,
    *,
    products: Products = "auto",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """(Q, G) float32 scores of every query map with every gallery map; larger is closer. No gradient.

    Where both are one tensor, half of the pairs are computed.

    Args:
        query, gallery: (Q, hw, c) and (G, hw, c) floating; float16 and bfloat16 maps are converted a block at a time.
        on_progress: gets (pairs done, pairs in all), often.
        should_stop: asked as often; True raises `Stopped`. The CUDA kernel hears neither: it is done in seconds.

    Raises:
        CoreError: the shapes do not fit together or the head.
        Stopped: `should_stop` said so.
    """
    check_maps(query, gallery)
    head.check(query, gallery)
    if query.is_cuda and is_available():
        return folded_scores_cuda(query, gallery, head.weights, head.bias)
    return _score(query, gallery, head, products, on_progress, should_stop, halved=query is gallery)


def symmetric_scores(
    maps: Tensor,
    head: FoldedHead,
    *,
    products: Products = "auto",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """(N, N) scores of (N, hw, c) maps among themselves, computed for half of the pairs; the diagonal is real.

    Arguments and errors as in `folded_scores`.
    """
    return folded_scores(maps, maps, head, products=products, on_progress=on_progress, should_stop=should_stop)


def _score(
    query: Tensor,
    gallery: Tensor,
    head: FoldedHead,
    products: Products,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    *,
    halved: bool,
) -> Tensor:
    weights, scores = head.weights.to(query.device), torch.empty(len(query), len(gallery), device=query.device)
    if products == "auto":
        products = _fastest(query)
    dtype = torch.bfloat16 if products == "bf16" else torch.float32
    add_up = add_maxima if products == "int16" else partial(_add_maxima, dtype=dtype)
    width = tile_width(gallery) if products == "int16" else block_width(query, gallery, dtype)

    def score_tile(tile: Tile) -> int:
        pairs = 0
        for one, several, sums in add_up(query, gallery, tile):
            of_one = torch.mv(sums, weights)
            scores[one, several] = of_one
            if halved:
                scores[several, one] = of_one
            pairs += len(of_one)
        return pairs

    done, total = 0, len(query) * (len(query) + 1) // 2 if halved else scores.numel()
    for pairs in work_in_threads(score_tile, make_tiles(query, gallery, width, halved=halved)):
        done += pairs
        on_progress(done, total)
        if should_stop():
            raise Stopped
    return scores.add_(head.bias)


def _fastest(maps: Tensor) -> Products:
    if maps.device.type != "cpu" or maps.dtype == torch.float64:
        return "fp32"
    if has_bf16_units():
        return "bf16"
    # One query does not gain what it takes to convert the gallery's maps.
    return "int16" if len(maps) > 1 and is_compiled_for_this_cpu() else "fp32"


def _add_maxima(
    query: Tensor, gallery: Tensor, tile: Tile, *, dtype: torch.dtype
) -> Iterator[tuple[int, slice, Tensor]]:
    """Adds up maxima as `add_maxima` does, from blocks of correlations as `dtype`."""
    for one, several, block in correlate(query, gallery, tile, dtype):
        yield one, several, _largest(block, 1).add_(_largest(block, 2))


def _largest(block: Tensor, dim: int) -> Tensor:
    """Float32 maxima along `dim`. That bf16 correlations are rounded loses nothing more here: rounding keeps order."""
    return torch.amax(block, dim) if block.dtype == torch.float32 else _largest_bf16(block, dim).float()


def _largest_bf16(block: Tensor, dim: int) -> Tensor:
    """Maxima of bf16 numbers by their bits read as int16, which CPUs compare ten times as fast.

    Bits of positive numbers are in the order of the numbers, above all negative ones, and those are in reverse.
    """
    bits = block.view(torch.int16)
    largest = torch.amax(bits, dim)
    all_negative = largest < 0
    if all_negative.any():
        largest = torch.where(all_negative, torch.amin(bits, dim), largest)
    return largest.view(torch.bfloat16)
