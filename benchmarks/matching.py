"""Pairs per second and memory of the QAConv matcher, beside the formula written plainly (`einsum`, `max`, `cat`).

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.matching --repeat 5

Scores 128 x 512 made-up maps of 24 x 8 locations and 64 channels, trains (forward and backward) on a batch of 64 maps
among themselves, and re-ranks 100 float16 candidates for 1 to 8 queries. All get the same inputs and take turns, so
that what else the machine does hits all alike; printed is the median. The plain version gets `--plain-queries` queries
at a time: 32 of them take 2.4 GB, and all at once would take 9.7. "products alone" are those of fp32 without the
maxima: what no matcher can beat that multiplies so. Memory is the peak beyond inputs and result, of one run in a
process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.devices import has_bf16_units
from reid_core.matching import FoldedHead, best_correlations, folded_scores
from reid_core.matching.cpu_kernels import is_available
from reid_core.matching.maps import Tile, block_width, correlate, make_tiles
from reid_core.matching.scores import Products
from reid_core.matching.threads import work_in_threads

BATCH, CANDIDATES, FEW = 64, 100, (1, 2, 4, 8)


@dataclass(frozen=True)
class Inputs:
    query: Tensor  # (Q, hw, c)
    gallery: Tensor  # (G, hw, c)
    head: FoldedHead


Runner = Callable[[Inputs], Tensor]


def make_inputs(options: argparse.Namespace) -> Inputs:
    generator = torch.Generator().manual_seed(options.seed)
    locations = options.height * options.width

    def make_maps(count: int) -> Tensor:
        return functional.normalize(torch.randn(count, locations, options.channels, generator=generator), dim=2)

    head = FoldedHead(torch.rand(locations, generator=generator) / locations, 0.0)
    return Inputs(make_maps(options.queries), make_maps(options.gallery), head)


def take_maxima(query: Tensor, gallery: Tensor) -> Tensor:
    """(Q, G, 2 * hw), from the formula."""
    correlations = torch.einsum("qrc,gsc->qgrs", query, gallery)
    return torch.cat([correlations.max(dim=3)[0], correlations.max(dim=2)[0]], dim=2)


def score_plainly(inputs: Inputs, queries: int) -> Tensor:
    weights = torch.cat([inputs.head.weights] * 2)
    return torch.cat([take_maxima(part, inputs.gallery) @ weights for part in inputs.query.split(queries)])


def score(inputs: Inputs, products: Products) -> Tensor:
    return folded_scores(inputs.query, inputs.gallery, inputs.head, products=products)


def multiply(inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """The products of `folded_scores` alone."""

    def multiply_tile(tile: Tile) -> None:
        for _ in correlate(inputs.query, inputs.gallery, tile, dtype):
            pass

    width = block_width(inputs.query, inputs.gallery, dtype)
    for _ in work_in_threads(multiply_tile, make_tiles(inputs.query, inputs.gallery, width, halved=False)):
        pass
    return torch.empty(0)


def train_plainly(inputs: Inputs) -> Tensor:
    maps = inputs.query[:BATCH].clone().requires_grad_()
    take_maxima(maps, maps).square().mean().backward()
    assert maps.grad is not None
    return maps.grad


def train(inputs: Inputs) -> Tensor:
    maps = inputs.query[:BATCH].clone().requires_grad_()
    torch.cat(best_correlations(maps, maps), dim=2).square().mean().backward()
    assert maps.grad is not None
    return maps.grad


def for_search(inputs: Inputs, queries: int) -> Inputs:
    """The maps that a search by so many images matches: theirs, and the stored ones of its candidates."""
    return Inputs(inputs.query[:queries], inputs.gallery[:CANDIDATES].half(), inputs.head)


def take_turns(runners: dict[str, Runner], inputs: Inputs, repeat: int) -> dict[str, float]:
    """Median seconds of each, after one turn to start threads and fill caches."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(repeat + 1):
        for name, run in runners.items():
            started = time.perf_counter()
            run(inputs)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def peak_bytes(run: Runner, options: argparse.Namespace) -> int:
    """Measures the peak of one run in this process, which must have done nothing before."""
    torch.set_num_threads(options.threads)
    inputs = make_inputs(options)
    resident = psutil.Process().memory_info().rss
    kept = run(inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    return int(peak - resident - kept.nbytes)


def peaks_apart(runners: dict[str, Runner], options: argparse.Namespace) -> dict[str, int]:
    """For each runner. Before this process does any work: on Linux a child begins with its parent's peak."""
    peaks = {}
    for name, run in runners.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[name] = pool.apply(peak_bytes, (run, options))
    return peaks


def report(title: str, seconds: dict[str, float], peaks: dict[str, int], pairs: int) -> None:
    """A line for each; the first is what the others are compared with."""
    print(f"\n{title}")
    plain = next(iter(seconds.values()))
    for name, taken in seconds.items():
        print(
            f"{name:<20} {pairs / taken:9,.0f} pairs/s, {taken * 1000:8.1f} ms, {plain / taken:5.1f} x plain, "
            f"peak {peaks[name] / 2**20:,.0f} MB"
        )


def check_agreement(options: argparse.Namespace) -> None:
    inputs = make_inputs(options)
    few = Inputs(inputs.query[:4], inputs.gallery, inputs.head)
    allowed: dict[Products, float] = {"fp32": 1e-4, "bf16": 1e-2}
    if is_available():
        allowed["int16"] = 1e-4
    off = {kind: (score(few, kind) - score_plainly(few, 4)).abs().max().item() for kind in allowed}
    shown = {kind: f"{value:.2g}" for kind, value in off.items()}
    print(f"largest difference from the plain scores, which are weighted means of correlations: {shown}")
    if any(off[kind] > limit for kind, limit in allowed.items()):
        raise SystemExit("The matchers disagree.")


def main() -> None:
    options = _parsed()
    torch.set_num_threads(options.threads)
    units = "with" if has_bf16_units() else "without"
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()} {units} bf16 "
        f"units, {options.threads} threads, torch {torch.__version__}; median of {options.repeat}"
    )
    able: dict[Products, bool] = {"fp32": True, "int16": is_available(), "bf16": has_bf16_units()}
    ours: dict[str, Runner] = {f"ours, {kind}": partial(score, products=kind) for kind, can in able.items() if can}
    scoring: dict[str, Runner] = {"plain": partial(score_plainly, queries=options.plain_queries), **ours}
    scoring["products alone"] = partial(multiply, dtype=torch.float32)
    if has_bf16_units():
        scoring["products alone, bf16"] = partial(multiply, dtype=torch.bfloat16)
    training: dict[str, Runner] = {"plain": train_plainly, "ours": train}
    scoring_peaks, training_peaks = peaks_apart(scoring, options), peaks_apart(training, options)

    check_agreement(options)
    inputs, size = make_inputs(options), f"{options.height} x {options.width} x {options.channels}"
    seconds = take_turns(scoring, inputs, options.repeat)
    pairs = options.queries * options.gallery
    report(f"scores, {options.queries} x {options.gallery} maps of {size}", seconds, scoring_peaks, pairs)
    seconds = take_turns(training, inputs, options.repeat)
    batch = min(BATCH, options.queries)
    report(f"forward and backward, {batch} x {batch} maps of {size}", seconds, training_peaks, batch**2)
    print(f"\nqueries x {CANDIDATES} float16 candidates")
    for queries in (few for few in FEW if few <= options.queries):
        seconds = take_turns(ours, for_search(inputs, queries), 10 * options.repeat)
        print(f"{queries}: " + "; ".join(f"{name} {taken * 1000:.1f} ms" for name, taken in seconds.items()))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--gallery", type=int, default=512)
    parser.add_argument("--height", type=int, default=24)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--plain-queries", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
