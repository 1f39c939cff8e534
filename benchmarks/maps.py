"""Re-ranking from stored maps: the time to read and match candidates, and what int8 costs beside float16.

    python -m benchmarks.maps --images 100000 --threads 2

Prints Markdown rows, all times medians in milliseconds. A re-ranking reads random candidates from the memory map and
scores them for one query; `cold` means that the operating system was told to forget the file before, `warm` that the
same candidates have just been read. `processor` is the time that cores spent on a warm one, all cores together: what
is left of it when other work waits for the same cores. `plain` does the same with `einsum` and `max`. Memory is what
the process owns before and after them (`uss`: mapped pages that the system may drop at any time are not counted).

The loss is measured against scores of the unrounded maps: how far the scores are off, in standard deviations of the
scores, and how much of the ten best is the same. The maps are made up: people as clusters of images, every location
a unit vector.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.maps import MAP_DTYPES, MapStore

SHAPE = (24, 8, 64)
NUM_LOCATIONS = SHAPE[0] * SHAPE[1]
IMAGES_PER_PERSON = 20
BEST = 10
_CHUNK = 1000

Maps = NDArray[np.float32]


def main() -> None:
    arguments = _parsed()
    torch.set_num_threads(arguments.threads)
    random = np.random.default_rng(arguments.seed)
    head = FoldedHead(torch.from_numpy(random.uniform(0.5, 1.5, NUM_LOCATIONS).astype(np.float32) / NUM_LOCATIONS), 0.0)
    print(f"{arguments.images:,} maps of {SHAPE}, {arguments.candidates} candidates, {arguments.threads} threads\n")
    print("| maps | file GB | cold | warm | of it reading | processor | plain | memory before / after MB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for dtype in MAP_DTYPES:
            print(f"| {dtype} | {_measured(Path(folder) / dtype, dtype, head, arguments)} |", flush=True)
    print("\n| maps | score error, standard deviations | ten best in common |")
    print("|---|---|---|")
    for dtype, row in _losses(head, random).items():
        print(f"| {dtype} | {row} |", flush=True)


def _measured(path: Path, dtype: str, head: FoldedHead, arguments: argparse.Namespace) -> str:
    random = np.random.default_rng(arguments.seed)
    _fill(MapStore.create(path, SHAPE, dtype), arguments.images, random)
    query, times = torch.from_numpy(_images(1, random)), []
    for repeat in range(1 + arguments.repeats):
        _forget(path)
        # Opened anew: the system forgets no page that is mapped.
        store = MapStore.open(path, SHAPE, dtype, count=arguments.images)
        positions = random.choice(arguments.images, arguments.candidates, replace=False)
        times.append(_times(store, positions, query, head))
        del store
        if repeat == 0:  # threads and buffers are made
            before = _megabytes()
    shown = " | ".join(f"{median:.1f}" for median in np.median(times[1:], axis=0))
    return f"{path.stat().st_size / 1e9:.2f} | {shown} | {before:.0f} / {_megabytes():.0f}"


def _times(store: MapStore, positions: NDArray[np.int64], query: Tensor, head: FoldedHead) -> list[float]:
    """Milliseconds of a re-ranking, of the same again, of reading alone, of the processor, and of the plain version."""

    def rerank() -> None:
        folded_scores(query, torch.from_numpy(store.read(positions)), head)

    def rerank_plainly() -> None:
        correlations = torch.einsum("qrc,gsc->qgrs", query, torch.from_numpy(store.read(positions)).float())
        torch.cat([correlations.amax(2), correlations.amax(3)], dim=2) @ head.weights.repeat(2)

    cold, warm, reading = _milliseconds(rerank), _milliseconds(rerank), _milliseconds(lambda: store.read(positions))
    return [cold, warm, reading, _milliseconds(rerank, time.process_time), _milliseconds(rerank_plainly)]


def _losses(head: FoldedHead, random: np.random.Generator) -> dict[str, str]:
    """Measures the error of scores by stored maps, and the share of the best results that stay the best."""
    queries, gallery = np.split(_images(_CHUNK, random), [50])
    exact = folded_scores(torch.from_numpy(queries), torch.from_numpy(gallery), head, products="fp32").numpy()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in MAP_DTYPES:
            store = MapStore.create(Path(folder) / dtype, SHAPE, dtype)
            store.write(0, gallery)
            stored = torch.from_numpy(store.read(range(len(gallery))))
            scores = folded_scores(torch.from_numpy(queries), stored, head, products="fp32").numpy()
            error = (scores - exact).std() / exact.std()
            same = np.mean([np.isin(*pair).mean() for pair in zip(_best(exact), _best(scores), strict=True)])
            rows[dtype] = f"{error:.5f} | {same:.4f}"
    return rows


def _best(scores: Maps) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :BEST]


def _fill(store: MapStore, count: int, random: np.random.Generator) -> None:
    for start in range(0, count, _CHUNK):
        store.write(start, _images(min(_CHUNK, count - start), random))


def _images(count: int, random: np.random.Generator) -> Maps:
    """(count, h * w, c) maps, each as far from its person's as that is long."""
    shape = (NUM_LOCATIONS, SHAPE[2])
    people = random.standard_normal((count // IMAGES_PER_PERSON + 1, *shape), dtype=np.float32)
    maps = people[random.integers(len(people), size=count)]
    maps += random.standard_normal(maps.shape, dtype=np.float32)
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    return maps


def _forget(path: Path) -> None:
    """Asks the operating system to drop the file's pages from memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _megabytes() -> float:
    return float(psutil.Process().memory_full_info().uss / 2**20)


def _milliseconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    call()
    return 1000 * (clock() - started)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where the maps are written for the time being; the system's own if left out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
