"""Search latency and recall of a gallery, by kind of index, beside a plain NumPy reference in the same run.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.search --images 100000 --dim 512 --threads 1

Prints Markdown rows: median and 95th percentile in milliseconds of one search, its filter included, for 1 and 32
queries. The reference multiplies matrices and sorts; recall is measured against it over 32 queries. Memory is what the
process grew by when it loaded the index, and that with the mapped vectors by the bytes of these. The vectors are made
up: people as clusters of images, queries as further images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from reid_core.retrieval.filters import Filters
from reid_core.retrieval.index import build_index, load_index, save_index, set_threads
from reid_core.retrieval.kinds import BUILT_KINDS
from reid_core.retrieval.snapshot import Snapshot
from reid_core.retrieval.store import FeatureStore

NUM_CAMERAS = 8
IMAGES_PER_PERSON = 20
NUM_QUERIES = (1, 32)
KINDS = ("flat", *BUILT_KINDS)
FILTERS = {
    "none": Filters(),
    "1 of 8 cameras": Filters(cameras=("3",)),
    "7 of 8 cameras": Filters(exclude_cameras=("3",)),
}

Vectors = NDArray[np.float32]


def main() -> None:
    arguments = _parsed()
    set_threads(arguments.threads)
    random = np.random.default_rng(arguments.seed)
    people = random.standard_normal((arguments.images // IMAGES_PER_PERSON + 1, arguments.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder) / "vectors", (arguments.dim,), np.dtype(np.float32))
        store.write(0, _images(people, arguments.images, random))
        queries = _images(people, max(NUM_QUERIES), random)
        for kind in arguments.kinds:
            snapshot = _opened(kind, store, arguments.images, arguments.seed)
            print("| index | queries | filter | median ms | p95 ms | NumPy median ms | recall |")
            print("|---|---|---|---|---|---|---|")
            for num_queries in NUM_QUERIES:
                for name, filters in FILTERS.items():
                    row = _measured(snapshot, queries, num_queries, filters, arguments)
                    print(f"| {kind} | {num_queries} | {name} | {row} |", flush=True)


def _opened(kind: str, store: FeatureStore, count: int, seed: int) -> Snapshot:
    """The gallery as an API process has it: the index built, written, and loaded again."""
    started = time.perf_counter()
    path = store.path.with_name(kind)
    sha256 = None if kind == "flat" else save_index(build_index(kind, store.rows(0, count), seed=seed), path)
    seconds = time.perf_counter() - started
    memory = psutil.Process().memory_info().rss
    index = None if sha256 is None else load_index(path, sha256)
    grown = psutil.Process().memory_info().rss - memory
    vectors = count * store.record_bytes
    share = (vectors + grown) / vectors
    print(f"\n{kind}: built in {seconds:.1f} s; index {grown / 2**20:.0f} MB, {share:.2f} x the vectors in all\n")
    cameras = [str(position % NUM_CAMERAS) for position in range(count)]
    return Snapshot.open(store, cameras, [None] * count, index)


def _measured(
    snapshot: Snapshot, queries: Vectors, num_queries: int, filters: Filters, arguments: argparse.Namespace
) -> str:
    k, batch = arguments.top_k, queries[:num_queries]
    rows = snapshot.store.rows(0, len(snapshot))
    median, p95 = _milliseconds(lambda: snapshot.search(batch, k, keep=snapshot.keep(filters)), arguments.repeats)
    reference, _ = _milliseconds(
        lambda: _compared(rows, batch, k, snapshot.keep(filters)), max(3, arguments.repeats // 10)
    )
    expected = _compared(rows, queries, k, snapshot.keep(filters))
    _, found = snapshot.search(queries, k, keep=snapshot.keep(filters))
    recall = np.mean([np.isin(*pair).mean() for pair in zip(expected, found, strict=True)])
    return f"{median:.2f} | {p95:.2f} | {reference:.2f} | {recall:.4f}"


def _compared(rows: Vectors, queries: Vectors, k: int, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    scores = np.where(keep, queries @ rows.T, -np.inf)  # (B, N)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _images(people: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """(count, D) unit vectors, each as far from its person's centre as that is long."""
    vectors = people[random.integers(len(people), size=count)]
    vectors += random.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times)), float(np.percentile(times, 95))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
