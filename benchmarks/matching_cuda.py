"""The CUDA matcher beside a plain einsum + max in blocks, same maps, same run: pairs/s, share of the card's bf16 rate.

    .venv/bin/python -m benchmarks.matching_cuda --classes 8000

The card's rate is that of one large bf16 product of random matrices, measured here. Only products of pairs that are
computed count towards the share: of a symmetric matrix, half. The plain version scores a few queries with all
galleries; its seconds for all pairs are in proportion.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from reid_core.matching.cuda import best_correlations_cuda, folded_scores_cuda, is_available

MATRIX = 8192


def main() -> None:
    arguments = parse_arguments()
    if not is_available():
        raise SystemExit(
            "This benchmark needs a CUDA device of compute capability 8.0 or later, Triton and a C compiler."
        )
    torch.manual_seed(arguments.seed)
    rate = measure_matrix_rate(arguments.repeat)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: bf16 products at {rate / 1e12:.0f} TFLOP/s")
    maps = make_maps(arguments.classes, arguments)
    weights = torch.rand(arguments.locations, device="cuda") / arguments.locations
    compare_scores(maps, weights, rate, arguments)
    compare_training(arguments)


def compare_scores(maps: Tensor, weights: Tensor, rate: float, arguments: argparse.Namespace) -> None:
    few, some = maps[: arguments.plain_queries], maps[:1000]
    difference = score(few, some, weights) - score_plainly(few.float(), some.float(), weights)
    print(f"largest difference from the plain version in float32: {difference.abs().max():.1e}")
    runs = (
        ("plain", few, maps, score_plainly),
        ("ours, every pair", maps, maps.clone(), score),
        ("ours, symmetric half", maps, maps, score),
    )
    for name, query, gallery, function in runs:
        seconds = measure(partial(function, query, gallery, weights), arguments.repeat)
        computed = len(maps) * (len(maps) + 1) // 2 if query is gallery else len(query) * len(gallery)
        flops = 2 * computed * arguments.locations**2 * arguments.channels / seconds
        whole = seconds * len(maps) / len(query)
        print(
            f"{name}: {len(maps) ** 2 / whole / 1e6:.2f} million pairs/s, {whole:.2f} s for all pairs of {len(maps)} "
            f"classes, {flops / 1e12:.0f} TFLOP/s = {flops / rate:.0%} of the card's rate"
        )


def score(query: Tensor, gallery: Tensor, weights: Tensor) -> Tensor:
    return folded_scores_cuda(query, gallery, weights, 0.0)


def score_plainly(query: Tensor, gallery: Tensor, weights: Tensor, block: int = 256) -> Tensor:
    """The formula, one query with `block` gallery maps at a time."""
    scores = query.new_empty(len(query), len(gallery), dtype=torch.float32)
    for row, one in zip(scores, query, strict=True):
        for start in range(0, len(gallery), block):
            correlations = torch.einsum("rc,gsc->grs", one, gallery[start : start + block])
            maxima = torch.cat([correlations.amax(2), correlations.amax(1)], 1).float()
            row[start : start + block] = maxima @ weights.repeat(2)
    return scores


def compare_training(arguments: argparse.Namespace) -> None:
    """One step's maxima and their gradients: a batch of 64 among itself, float32."""
    maps = make_maps(64, arguments).float().requires_grad_()
    for name, function in (("plain", correlate_plainly), ("ours", best_correlations_cuda)):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = measure(partial(differentiate, function, maps), arguments.repeat)
        peak = torch.cuda.max_memory_allocated() - before
        print(f"training step of 64 x 64 pairs, {name}: {seconds * 1e3:.2f} ms, {peak / 1e6:.0f} MB")


def differentiate(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> None:
    row_max, column_max = function(maps, maps)
    torch.autograd.grad(row_max.mean() + column_max.mean(), maps)


def correlate_plainly(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    correlations = torch.einsum("qrc,gsc->qgrs", query, gallery)
    return correlations.max(3).values, correlations.max(2).values


def measure_matrix_rate(repeat: int) -> float:
    one, other = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2.0 * MATRIX**3 / measure(lambda: one @ other, max(repeat, 10))


def measure(work: Callable[[], object], repeat: int) -> float:
    """Median seconds on the device, after one run to compile and warm up."""
    work()
    seconds: list[float] = []
    for _ in range(repeat):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        stop.record()
        stop.synchronize()
        seconds.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(seconds)


def make_maps(count: int, arguments: argparse.Namespace) -> Tensor:
    maps = torch.randn(count, arguments.locations, arguments.channels, device="cuda")
    return functional.normalize(maps, dim=2).bfloat16()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=8000)
    parser.add_argument("--locations", type=int, default=24 * 8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--plain-queries", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
