"""Memory of an evaluation with the matcher at MSMT17's size: from maps on disk, beside all of them in memory.

    python -m benchmarks.blocks --queries 64

Scores some queries with 82,161 made-up maps of 24 x 8 locations and 64 channels in half precision (2 GB), as an
evaluation job does it for every pair, then with the maps loaded as one array and the same matcher. Each runs in a
process of its own. Printed are the seconds and the peak of anonymous memory, the part that the system cannot take back
(Linux, /proc); pages of the mapped file are not in it. The scores are compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.maps import MapStore
from reid_core.retrieval.pairs import Pairs

SHAPE, DTYPE = (24, 8, 64), "float16"
GALLERY = 82_161
WRITTEN_AT_ONCE = 512


@dataclass(frozen=True)
class Reading:
    seconds: float
    peak_bytes: int
    scores: np.ndarray


def write_maps(path: Path, count: int, seed: int) -> None:
    store, generator = MapStore.create(path, SHAPE, DTYPE), np.random.default_rng(seed)
    for start in range(0, count, WRITTEN_AT_ONCE):
        maps = generator.standard_normal(
            (min(WRITTEN_AT_ONCE, count - start), SHAPE[0] * SHAPE[1], SHAPE[2]), np.float32
        )
        store.write(start, maps / np.linalg.norm(maps, axis=2, keepdims=True))


def make_head() -> FoldedHead:
    locations = SHAPE[0] * SHAPE[1]
    return FoldedHead(torch.rand(locations, generator=torch.Generator().manual_seed(1)) / locations, 0.0)


def score_in_blocks(query: MapStore, gallery: MapStore) -> Tensor:
    return Pairs(query, gallery, make_head(), should_stop=lambda: False).score_all(0, len(query))


def score_at_once(query: MapStore, gallery: MapStore) -> Tensor:
    maps = [torch.from_numpy(store.read(np.arange(len(store)))) for store in (query, gallery)]
    return folded_scores(maps[0], maps[1], make_head())


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak_of_memory(peaks: list[int]) -> Iterator[None]:
    """Appends the peak of anonymous memory beyond that at the start, read every 5 ms."""
    before, ended, most = anonymous_bytes(), threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], anonymous_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        peaks.append(most[0])


def measure(run: Callable[[MapStore, MapStore], Tensor], folder: Path, queries: int) -> Reading:
    stores = [
        MapStore.open(folder / name, SHAPE, DTYPE, count=count)
        for name, count in (("query", queries), ("gallery", GALLERY))
    ]
    peaks: list[int] = []
    started = time.perf_counter()
    with peak_of_memory(peaks):
        scores = run(*stores)
    return Reading(time.perf_counter() - started, peaks[0], scores.numpy())


def measure_apart(run: Callable[[MapStore, MapStore], Tensor], folder: Path, queries: int) -> Reading:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (run, folder, queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_maps(folder / "query", options.queries, options.seed)
        write_maps(folder / "gallery", GALLERY, options.seed + 1)
        blocks, at_once = (measure_apart(run, folder, options.queries) for run in (score_in_blocks, score_at_once))
    for title, reading in (("from disk, in blocks", blocks), ("all in memory", at_once)):
        print(f"{title:<22} {reading.seconds:6.1f} s; peak {reading.peak_bytes / 2**20:,.0f} MB")
    if not np.allclose(blocks.scores, at_once.scores, atol=1e-3):
        raise SystemExit("The scores differ.")


if __name__ == "__main__":
    main()
