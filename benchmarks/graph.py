"""Seconds for the graph of graph sampling: every class against every other, from one stored map per class.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.graph --classes 751

Both versions read the same made-up float16 maps (24 x 8 locations, 64 channels) from a store and find the nearest
classes of each: ours by the symmetric half in blocks, the plain one from the formula (`einsum`, `max`, `cat`) on whole
maps, as many classes at a time as `--plain-queries` says: 32, as in `benchmarks/matching.py`; fewer take less memory
and are faster. Re-ranking is measured by `benchmarks/reranking.py`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.devices import has_bf16_units
from reid_core.matching import FoldedHead, symmetric_scores
from reid_core.retrieval.store import FeatureStore

LOCATIONS, CHANNELS = 24 * 8, 64


def store_maps(path: Path, classes: int, seed: int) -> FeatureStore:
    maps = functional.normalize(
        torch.randn(classes, LOCATIONS, CHANNELS, generator=torch.Generator().manual_seed(seed)), dim=2
    )
    store = FeatureStore.create(path, (LOCATIONS, CHANNELS), np.dtype(np.float16))
    store.write(0, maps.numpy())
    return store


def score(store: FeatureStore, head: FoldedHead) -> Tensor:
    return symmetric_scores(torch.from_numpy(store.read(np.arange(len(store)))), head)


def score_plainly(store: FeatureStore, head: FoldedHead, queries: int) -> Tensor:
    maps, weights = torch.from_numpy(store.read(np.arange(len(store)))).float(), torch.cat([head.weights] * 2)
    rows = []
    for part in maps.split(queries):
        correlations = torch.einsum("qrc,gsc->qgrs", part, maps)
        rows.append(torch.cat([correlations.max(dim=3)[0], correlations.max(dim=2)[0]], dim=2) @ weights)
    return torch.cat(rows)


def find_nearest(scores: Tensor, count: int) -> Tensor:
    """(C, count) nearest other classes."""
    return scores.fill_diagonal_(-torch.inf).topk(count).indices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=751, help="Market-1501 trains on 751")
    parser.add_argument("--neighbours", type=int, default=15, help="P - 1 for batches of 16 classes")
    parser.add_argument("--plain-queries", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    units = "with" if has_bf16_units() else "without"
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()} {units} bf16 "
        f"units, {options.threads} threads, torch {torch.__version__}"
    )
    head = FoldedHead(torch.rand(LOCATIONS, generator=torch.Generator().manual_seed(1)) / LOCATIONS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        store = store_maps(Path(folder) / "maps", options.classes, options.seed)
        measure(store, head, options)


def measure(store: FeatureStore, head: FoldedHead, options: argparse.Namespace) -> None:
    """Turn by turn, so that what else the machine does hits both alike."""
    for _ in range(options.repeat):
        started = time.perf_counter()
        nearest = find_nearest(score(store, head), options.neighbours)
        ours = time.perf_counter() - started
        plain_nearest = find_nearest(score_plainly(store, head, options.plain_queries), options.neighbours)
        plain = time.perf_counter() - started - ours
        same = (nearest == plain_nearest).float().mean().item()
        print(
            f"ours {ours:.1f} s, plain {plain:.1f} s, {plain / ours:.1f} x; {same:.2%} of neighbours agree", flush=True
        )


if __name__ == "__main__":
    main()
