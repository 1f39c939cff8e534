"""FAISS indexes over unit vectors, by kind: flat (exact), hnsw (a graph), ivfpq (cells and product-quantised codes).

All rank by inner product, larger is closer, and number their vectors 0, 1, ... in the order given. An index only
proposes candidates: scores are calculated from the stored vectors (see `snapshot`). Once a search can see an index it
is never changed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.store import REBUILD, file_sha256, write_atomically

INDEX_KINDS = ("flat", "hnsw", "ivfpq")

FLAT_NUMBERS = 100_000_000
"""Up to so many numbers (195,000 vectors of 512, 0.4 GB) "auto" searches exactly: tens of milliseconds on one core."""

HNSW_NUMBERS = 1_000_000_000
"""Up to so many (2 million vectors of 512, 4 GB in memory) "auto" takes hnsw; beyond, ivfpq, 15 times smaller."""

HNSW_LINKS = 32
HNSW_BUILD_BREADTH = 100
HNSW_SEARCH_BREADTH = 128

PQ_BITS = 8
PQ_NUMBERS_PER_BYTE = 4
IVF_PROBES = 32
IVF_OVERSAMPLE = 8
"""Product-quantised scores are coarse: so many times the candidates asked for are proposed, for exact scoring."""

TRAINING_PER_CENTROID = 39
"""FAISS's own least number of training vectors per centroid."""

IVFPQ_LEAST = TRAINING_PER_CENTROID * 2**PQ_BITS
"""Vectors that ivfpq needs to be trained on: 9,984."""

BLAS_FROM_NUMBERS = 4_000
"""Query numbers (queries x D) from which FAISS multiplies matrices instead of scanning per query. Its own 128,000 is
several times slower between 8 and 250 queries of 512, and no different at one."""


def set_threads(count: int) -> None:
    """FAISS uses `count` threads for calls made by the calling thread; OpenMP keeps this number per thread.

    Hand it to a thread pool as `initializer`, so that every thread that searches has run it.
    """
    faiss.omp_set_num_threads(count)
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_NUMBERS


def choose_kind(count: int, dim: int) -> str:
    """The kind that "auto" means for `count` vectors of `dim` numbers: exact search for as long as it is quick."""
    numbers = count * dim
    if numbers <= FLAT_NUMBERS:
        return "flat"
    return "hnsw" if numbers <= HNSW_NUMBERS else "ivfpq"


def build_index(kind: str, vectors: NDArray[np.float32], *, seed: int) -> Any:
    """An index of `kind` over `vectors` (N, D) float32 of unit length; `seed` fixes graph levels and cell training.

    Raises CoreError for an unknown kind, and for ivfpq over fewer than `IVFPQ_LEAST` vectors.
    """
    count, dim = vectors.shape
    if kind == "flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
        index = _untrained_hnsw(dim, seed)
    elif kind == "ivfpq":
        index = _trained_ivfpq(vectors, seed)
    else:
        raise CoreError(f"unknown index {kind!r}", hint=f"choose one of {', '.join(INDEX_KINDS)}")
    if count:
        index.add(vectors)
    return index


def is_exact(index: Any) -> bool:
    """True where `candidates` of this index are certain to be the closest ones."""
    return isinstance(index, faiss.IndexFlat)


def candidates(index: Any, queries: NDArray[np.float32], width: int, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers (B, at least `width`) of the vectors that `index` holds closest to each of `queries` (B, D).

    Only vectors whose entry in `keep` (N,) is true are proposed. An approximate index may propose more than `width`
    or find fewer; places left over hold -1.
    """
    if isinstance(index, faiss.IndexIVFPQ):
        width *= IVF_OVERSAMPLE
    width = min(width, index.ntotal)
    _, numbers = index.search(queries, width, params=_search_parameters(index, width, keep))
    return np.asarray(numbers, dtype=np.int64)


def closest(queries: NDArray[np.float32], vectors: NDArray[np.float32], width: int) -> NDArray[np.int64]:
    """Numbers (B, min(width, N)) of the `vectors` (N, D) closest to each of `queries` (B, D), without an index."""
    _, numbers = faiss.knn(queries, vectors, min(width, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(numbers, dtype=np.int64)


def erase_vectors(index: Any, numbers: NDArray[np.int64]) -> None:
    """Overwrites the vectors at `numbers` with zeros, in place: for a loaded index that is saved again, none in use."""
    storage = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    if isinstance(storage, faiss.IndexFlat):
        faiss.rev_swig_ptr(storage.get_xb(), storage.ntotal * storage.d).reshape(-1, storage.d)[numbers] = 0
        return
    storage.set_direct_map_type(faiss.DirectMap.Array)
    storage.update_vectors(numbers, np.zeros((len(numbers), storage.d), np.float32))
    storage.set_direct_map_type(faiss.DirectMap.NoMap)


def save_index(index: Any, path: Path) -> str:
    """Writes `index` to `path` atomically; its SHA-256, to be kept where `load_index` is called from.

    Raises OSError where the disk is full.
    """
    write_atomically(path, lambda scratch: _write(index, scratch))
    return file_sha256(path)


def load_index(path: Path, sha256: str) -> Any:
    """The index that `save_index` wrote; IndexCorrupt where the file is missing or a single bit differs."""
    if not path.is_file():
        raise IndexCorrupt(f"{path.name} is missing", hint=REBUILD)
    found = file_sha256(path)
    if found != sha256:
        raise IndexCorrupt(f"{path.name} has SHA-256 {found}, expected {sha256}", hint=REBUILD)
    return faiss.read_index(str(path))


def _write(index: Any, path: Path) -> None:
    # Not by FAISS itself, which does not notice that a full disk has not taken the end of the file.
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _untrained_hnsw(dim: int, seed: int) -> Any:
    index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD_BREADTH
    index.hnsw.rng = faiss.RandomGenerator(seed)
    return index


def _trained_ivfpq(vectors: NDArray[np.float32], seed: int) -> Any:
    count, dim = vectors.shape
    if count < IVFPQ_LEAST:
        detail = f"an ivfpq index needs {IVFPQ_LEAST} vectors to be trained on, there are {count}"
        raise CoreError(detail, hint="choose index 'flat' or 'auto' until the gallery is larger")
    cells = _num_cells(count)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(quantizer, dim, cells, _num_codes(dim), PQ_BITS, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = seed
    # A sample of our own: FAISS's takes all vectors through memory.
    sample = min(count, 2 * TRAINING_PER_CENTROID * max(cells, 2**PQ_BITS))
    chosen = np.random.default_rng(seed).choice(count, sample, replace=False)
    index.train(vectors[np.sort(chosen)])
    return index


def _num_cells(count: int) -> int:
    """Around 4 sqrt(N), as many as there are vectors to train."""
    return min(round(4 * math.sqrt(count)), count // TRAINING_PER_CENTROID)


def _num_codes(dim: int) -> int:
    """Bytes per vector: the largest divisor of D that leaves each at least `PQ_NUMBERS_PER_BYTE` numbers."""
    return max(codes for codes in range(1, max(1, dim // PQ_NUMBERS_PER_BYTE) + 1) if dim % codes == 0)


def _search_parameters(index: Any, width: int, keep: NDArray[np.bool_]) -> Any:
    # What a filter hides is still walked through: the narrower the filter, the wider the search.
    share = np.count_nonzero(keep) / len(keep)
    selector = None if share == 1 else faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
    if isinstance(index, faiss.IndexHNSW):
        breadth = math.ceil(max(HNSW_SEARCH_BREADTH, width) / share)
        return faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(index.nlist, math.ceil(IVF_PROBES / share)))
    return faiss.SearchParameters(sel=selector)
