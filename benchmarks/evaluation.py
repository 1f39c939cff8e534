"""Seconds and memory of an evaluation of Market-1501's or MSMT17's size, beside a plain evaluator that sorts every row.

    python -m benchmarks.evaluation --dim 512 --repeat 5
    python -m benchmarks.evaluation --size msmt17 --dim 256 --repeat 1 --reference-queries 100

Both get the same made-up embeddings: for Market-1501 3,368 queries of 750 people by 6 cameras, 15,913 gallery images,
of them 2,798 distractors; for MSMT17 11,659 queries of 3,060 people by 15 cameras, 82,161 images. `--noise` says how
hard they are: 2 resembles a trained network; 1000 is chance, the slowest case for ours.
The plain evaluator does what is commonly done: all scores in one matrix, an argsort, a Python loop over the queries.
`--reference-queries` gives it fewer queries and scales its time. Each runs in a process of its own, so that the peak
of memory is its own; it is counted beyond what the embeddings take.
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

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.evaluation.labels import NOBODY, Labels
from reid_core.evaluation.ranking import BLOCK_SCORES, evaluate


@dataclass(frozen=True)
class Size:
    queries: int
    gallery: int
    people: int
    cameras: int
    distractors: int


SIZES = {"market1501": Size(3368, 15913, 750, 6, 2798), "msmt17": Size(11659, 82161, 3060, 15, 0)}


@dataclass(frozen=True)
class Inputs:
    query: Tensor  # (Q, D)
    gallery: Tensor  # (G, D)
    query_labels: Labels
    gallery_labels: Labels


@dataclass(frozen=True)
class Reading:
    seconds: float
    product_seconds: float  # for the same matrix product alone
    peak_bytes: int
    rank1_and_map: tuple[float, float]


Evaluator = Callable[[Inputs], tuple[float, float]]


def make_inputs(size: Size, dim: int, noise: float, seed: int, queries: int) -> Inputs:
    """Unit embeddings around one direction per person; distractors each have a direction of their own."""
    generator = np.random.default_rng(seed)
    torch_generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(size.people + size.distractors, dim, generator=torch_generator)
    asked = np.arange(size.queries) % size.people
    known = generator.integers(0, size.people, size.gallery - size.distractors)
    shown = np.concatenate([known, size.people + np.arange(size.distractors)])
    shown = generator.permutation(shown)

    def embed(people: np.ndarray) -> Tensor:
        embeddings = torch.empty(len(people), dim)
        # A part at a time, so that making them takes less memory than the evaluators, whose peak is measured.
        for part, of_people in zip(embeddings.split(1000), torch.from_numpy(people).split(1000), strict=True):
            strays = torch.randn(len(part), dim, generator=torch_generator)
            part.copy_(functional.normalize(directions[of_people] + noise * strays))
        return embeddings

    query, gallery = embed(asked), embed(shown)
    query_cameras, gallery_cameras = (
        generator.integers(0, size.cameras, count) for count in (size.queries, size.gallery)
    )
    return Inputs(
        query[:queries],
        gallery,
        Labels(asked[:queries], query_cameras[:queries]),
        Labels(np.where(shown < size.people, shown, NOBODY), gallery_cameras),
    )


def run_ours(inputs: Inputs) -> tuple[float, float]:
    metrics = evaluate(inputs.query, inputs.gallery, inputs.query_labels, inputs.gallery_labels)
    return metrics.cmc[1], metrics.mAP


def run_plain(inputs: Inputs) -> tuple[float, float]:
    """Rank-1 and mAP from the definitions."""
    scores = (inputs.query @ inputs.gallery.T).numpy()
    order = np.argsort(-scores, axis=1, kind="stable")
    people, cameras = inputs.gallery_labels.identities, inputs.gallery_labels.cameras
    first_hits, average_precisions = [], []
    for row, person, camera in zip(order, inputs.query_labels.identities, inputs.query_labels.cameras, strict=True):
        kept = row[(people[row] != person) | (cameras[row] != camera)]
        hits = people[kept] == person
        if not hits.any():
            continue
        precision = hits.cumsum() / (np.arange(len(hits)) + 1)
        first_hits.append(hits[0])
        average_precisions.append((precision * hits).sum() / hits.sum())
    return float(np.mean(first_hits)), float(np.mean(average_precisions))


def time_product(inputs: Inputs) -> float:
    """Seconds for the scores alone, in blocks as `evaluate` makes them."""
    rows = BLOCK_SCORES // len(inputs.gallery)
    block = np.empty((rows, len(inputs.gallery)), np.float32)
    started = time.perf_counter()
    for part in inputs.query.split(rows):
        np.matmul(part.numpy(), inputs.gallery.numpy().T, out=block[: len(part)])
    return time.perf_counter() - started


def measure(run: Evaluator, queries: int, options: argparse.Namespace) -> Reading:
    """Median seconds over the repeats, after one run to start threads and fill caches."""
    torch.set_num_threads(options.threads)
    inputs = make_inputs(SIZES[options.size], options.dim, options.noise, options.seed, queries)
    resident = psutil.Process().memory_info().rss
    result = run(inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    seconds, products = [], []
    for _ in range(options.repeat):
        started = time.perf_counter()
        run(inputs)
        seconds.append(time.perf_counter() - started)
        products.append(time_product(inputs))
    return Reading(statistics.median(seconds), statistics.median(products), peak - resident, result)


def measure_apart(run: Evaluator, queries: int, options: argparse.Namespace) -> Reading:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (run, queries, options))


def report(name: str, reading: Reading, scale: float = 1.0) -> None:
    rank1, precision = reading.rank1_and_map
    print(
        f"{name:<6} {reading.seconds * scale:7.3f} s, {reading.product_seconds * scale:.3f} s for the product alone; "
        f"peak {reading.peak_bytes / 2**20:.0f} MB; rank-1 {rank1:.4f}, mAP {precision:.4f}"
    )


def check_agreement(plain: Reading, options: argparse.Namespace) -> None:
    ours = run_ours(
        make_inputs(SIZES[options.size], options.dim, options.noise, options.seed, options.reference_queries)
    )
    # Products in blocks of different size may round differently, which can swap two nearly equal scores.
    if not np.allclose(ours, plain.rank1_and_map, atol=1e-4):
        raise SystemExit(f"The evaluators disagree on rank-1 and mAP: {ours} against {plain.rank1_and_map}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="market1501")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--reference-queries", type=int, help="all, if left out")
    options = parser.parse_args()
    size = SIZES[options.size]
    options.reference_queries = min(options.reference_queries or size.queries, size.queries)

    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.threads} threads, torch {torch.__version__}, numpy {np.__version__}"
    )
    print(f"{size.queries} x {size.gallery} x {options.dim}, noise {options.noise}, median of {options.repeat}")
    report("ours", measure_apart(run_ours, size.queries, options))
    plain = measure_apart(run_plain, options.reference_queries, options)
    report("plain", plain, size.queries / options.reference_queries)
    if options.reference_queries < size.queries:
        print(f"plain: seconds scaled up from {options.reference_queries} queries; its memory grows likewise")
    check_agreement(plain, options)


if __name__ == "__main__":
    main()
