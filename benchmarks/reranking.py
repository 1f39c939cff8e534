"""Seconds and memory of k-reciprocal re-ranking, beside two plain ones that hold every matrix whole.

    python -m benchmarks.reranking
    python -m benchmarks.reranking --queries 15000 --gallery 80000 --people 3000 --repeat 1 --no-plain

All get the same made-up embeddings, grouped by person and camera. `--noise` says how hard they are, which rank-1 and
mAP before and after show. The plain ones hold all distances in one matrix, argsort it and fill dense encodings image
by image. `dense` then compares whole encodings, as the Jaccard distance is defined; `indexed` uses an inverted index,
as is commonly done. Ours is timed until the scores of all queries are made, block by block as an evaluation asks for
them. Each runs in a process of its own, so that the peak of memory is its own, and they take turns, so that all
meet the same load.
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
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reid_core.evaluation.labels import Labels
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.ranking import BLOCK_SCORES, evaluate, evaluate_scores
from reid_core.reranking import Reciprocal, rerank_embeddings

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

PAPER = Reciprocal()
CAMERAS, LATENT = 6, 64
COMPARED = 100  # queries whose distances are held against each other


@dataclass(frozen=True)
class Inputs:
    query: Tensor  # (Q, D)
    gallery: Tensor  # (G, D)
    query_labels: Labels
    gallery_labels: Labels


@dataclass(frozen=True)
class Reading:
    seconds: float
    cpu_seconds: float  # of all threads, the better measure where others share the cores
    peak_bytes: int  # of the process so far
    growth_bytes: int  # of that, what came on top of the embeddings
    distances: Floats  # (COMPARED, G)


def make_inputs(options: argparse.Namespace) -> Inputs:
    """Unit embeddings of few directions, as a trained network's: a person's, shifted by camera and image; some
    images stray farther than others."""
    generator = torch.Generator().manual_seed(options.seed)
    size = options.queries + options.gallery
    people = torch.arange(size) % options.people
    cameras = torch.randint(CAMERAS, (size,), generator=generator)
    centres = torch.randn(options.people, LATENT, generator=generator)
    shifts = 0.6 * torch.randn(CAMERAS, LATENT, generator=generator)
    strays = torch.randn(size, LATENT, generator=generator) * torch.rand(size, 1, generator=generator)
    mixing = torch.randn(LATENT, options.dim, generator=generator)
    vectors = functional.normalize((centres[people] + shifts[cameras] + options.noise * strays) @ mixing)
    query, gallery = vectors.split([options.queries, options.gallery])
    splits = zip(people.split([len(query), len(gallery)]), cameras.split([len(query), len(gallery)]), strict=True)
    query_labels, gallery_labels = (Labels(identities.numpy(), taken_by.numpy()) for identities, taken_by in splits)
    return Inputs(query, gallery, query_labels, gallery_labels)


def run_ours(inputs: Inputs) -> Floats:
    reranked = rerank_embeddings(inputs.query, inputs.gallery, PAPER)
    rows = max(COMPARED, BLOCK_SCORES // len(inputs.gallery))
    scores = reranked.scores(0, min(rows, len(inputs.query)))
    compared: Floats = 1 - scores[:COMPARED].numpy()
    for start in range(rows, len(inputs.query), rows):
        reranked.scores(start, min(start + rows, len(inputs.query)))
    return compared


def run_dense(inputs: Inputs) -> Floats:
    return run_plain(inputs, measure_dense_jaccard)


def run_indexed(inputs: Inputs) -> Floats:
    return run_plain(inputs, measure_indexed_jaccard)


def run_plain(inputs: Inputs, measure_jaccard: Callable[[Floats, int], Floats]) -> Floats:
    vectors = torch.cat([inputs.query, inputs.gallery]).numpy()
    squares = np.square(vectors).sum(axis=1)
    original = squares[:, None] + squares - 2 * (vectors @ vectors.T)
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1)
    encodings = np.zeros_like(original)
    for image in range(len(original)):
        members = expand(order, image)
        weights = np.exp(-original[image, members])
        encodings[image, members] = weights / weights.sum()
    averaged = np.stack([encodings[nearest].mean(axis=0) for nearest in order[:, : PAPER.k2]])
    queries = len(inputs.query)
    result: Floats = (1 - PAPER.weight) * measure_jaccard(averaged, queries) + PAPER.weight * original[:queries]
    return result[:COMPARED, queries:]


def expand(order: Indices, image: int) -> Indices:
    own = find_reciprocal(order, image, PAPER.k1)
    sets = [own]
    for other in own:
        theirs = find_reciprocal(order, other, PAPER.k1 // 2)
        if 3 * len(np.intersect1d(own, theirs)) > 2 * len(theirs):
            sets.append(theirs)
    return np.unique(np.concatenate(sets))


def find_reciprocal(order: Indices, image: int, k: int) -> Indices:
    nearest = order[image, : k + 1]
    returned: Indices = nearest[(order[nearest, : k + 1] == image).any(axis=1)]
    return returned


def measure_dense_jaccard(encodings: Floats, queries: int) -> Floats:
    """Encodings sum to one, so the maxima of two sum to 2 - their minima."""
    minima = np.stack([np.minimum(encoding, encodings).sum(axis=1) for encoding in encodings[:queries]])
    jaccard: Floats = 1 - minima / (2 - minima)
    return jaccard


def measure_indexed_jaccard(encodings: Floats, queries: int) -> Floats:
    holders = [np.flatnonzero(column) for column in encodings.T]
    minima = np.zeros((queries, len(encodings)), dtype=np.float32)
    for row, encoding in zip(minima, encodings[:queries], strict=True):
        for column in np.flatnonzero(encoding):
            row[holders[column]] += np.minimum(encoding[column], encodings[holders[column], column])
    return 1 - minima / (2 - minima)


def measure(run: Callable[[Inputs], Floats], options: argparse.Namespace) -> Reading:
    torch.set_num_threads(options.threads)
    inputs = make_inputs(options)
    resident = psutil.Process().memory_info().rss
    started, cpu_started = time.perf_counter(), time.process_time()
    distances = run(inputs)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    return Reading(seconds, cpu_seconds, peak, peak - resident, distances)


def report(name: str, readings: list[Reading]) -> float:
    """Median seconds, after a first run that starts threads and fills caches unless it is the only one."""
    counted = readings[1:] or readings
    seconds = statistics.median(reading.seconds for reading in counted)
    cpu_seconds = statistics.median(reading.cpu_seconds for reading in counted)
    peak, growth = readings[0].peak_bytes / 2**20, readings[0].growth_bytes / 2**20
    print(
        f"{name:<7} {seconds:8.3f} s, {cpu_seconds:8.3f} s of CPU time; "
        f"peak {peak:.0f} MB, {growth:.0f} MB beyond the embeddings"
    )
    return seconds


def print_accuracy(inputs: Inputs) -> None:
    def show(name: str, metrics: Metrics) -> None:
        print(f"{name:<9} rank-1 {metrics.cmc[1]:.4f}, mAP {metrics.mAP:.4f}")

    show("embedded", evaluate(inputs.query, inputs.gallery, inputs.query_labels, inputs.gallery_labels))
    reranked = rerank_embeddings(inputs.query, inputs.gallery, PAPER)
    show("re-ranked", evaluate_scores(reranked.scores, inputs.query_labels, inputs.gallery_labels))


def compare(options: argparse.Namespace) -> None:
    runs = {"ours": run_ours}
    if not options.no_plain:
        runs |= {"dense": run_dense, "indexed": run_indexed}
    context = multiprocessing.get_context("spawn")
    pools = {name: context.Pool(1) for name in runs}
    turns = range(options.repeat + (options.repeat > 1))
    readings: dict[str, list[Reading]] = {name: [] for name in runs}
    for _ in turns:
        for name, run in runs.items():
            readings[name].append(pools[name].apply(measure, (run, options)))
    ours, *plain = [report(name, of_name) for name, of_name in readings.items()]
    for name, seconds in zip(list(runs)[1:], plain, strict=True):
        gap = np.abs(readings["ours"][0].distances - readings[name][0].distances).max()
        print(f"ours takes 1/{seconds / ours:.1f} of {name}; {COMPARED} queries' distances differ by {gap:.1e} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--gallery", type=int, default=4000)
    parser.add_argument("--people", type=int, default=250)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-plain", action="store_true")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.threads} threads, torch {torch.__version__}, numpy {np.__version__}"
    )
    print(f"{options.queries} x {options.gallery} x {options.dim}, {options.people} people, noise {options.noise}")
    compare(options)
    print_accuracy(make_inputs(options))


if __name__ == "__main__":
    main()
