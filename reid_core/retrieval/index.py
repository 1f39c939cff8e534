"""FAISS indexes over unit vectors, by kind: rabitq (a bit per number), hnsw (a graph), ivfpq (cells and codes).

All rank by inner product, larger is closer, and number their vectors 0, 1, ... in the order given. An index only
proposes candidates: scores are calculated from the stored vectors (see `snapshot`). Once a search can see an index it
is never changed. The kind flat has no index: `closest` compares with the vectors where they lie.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.kinds import BUILT_KINDS, IVFPQ_LEAST, PQ_BITS, RABITQ_LEAST, TRAINING_PER_CENTROID
from reid_core.retrieval.store import REBUILD, file_sha256, write_atomically

RABITQ_MOST = 1024
"""Numbers that are coded. FAISS adds their parts up in 16 bits; longer vectors are projected to so many at random."""

RABITQ_OVERSAMPLE = 8
RABITQ_MARGIN = 1.5
"""Estimated scores are coarse: so many times the candidates asked for are proposed, for exact scoring; and so many
times what a filter is expected to take from these, since FAISS knows no filters here."""

RABITQ_SAMPLE = 50_000
ADDED_AT_ONCE = 50_000

HNSW_LINKS = 32
HNSW_BUILD_BREADTH = 100
HNSW_SEARCH_BREADTH = 128

PQ_NUMBERS_PER_BYTE = 4
IVF_PROBES = 32
IVF_OVERSAMPLE = 8
"""Product-quantised scores are coarse: so many times the candidates asked for are proposed, for exact scoring."""

BLAS_FROM_NUMBERS = 4_000
"""Query numbers (queries x D) from which FAISS multiplies matrices instead of scanning per query. Its own 128,000 is
several times slower between 8 and 250 queries of 512, and no different at one."""


CHUNK_BYTES = 32 * 2**20


def set_threads(count: int) -> None:
    """FAISS uses `count` threads for calls made by the calling thread; OpenMP keeps this number per thread.

    Hand it to a thread pool as `initializer`, so that every thread that searches has run it.
    """
    faiss.omp_set_num_threads(count)
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_NUMBERS


def build_index(kind: str, vectors: NDArray[np.float32], *, seed: int) -> Any:
    """An index of `kind` over `vectors` (N, D) float32 of unit length; `seed` fixes all that is random.

    Raises CoreError for an unknown kind, for ivfpq over fewer than `IVFPQ_LEAST` vectors and for rabitq over vectors of
    fewer than `RABITQ_LEAST` numbers.
    """
    count, dim = vectors.shape
    if kind == "rabitq":
        index = _trained_rabitq(vectors, seed)
    elif kind == "hnsw":
        index = _untrained_hnsw(dim, seed)
    elif kind == "ivfpq":
        index = _trained_ivfpq(vectors, seed)
    else:
        raise CoreError(f"unknown index {kind!r}", hint=f"choose one of {', '.join(BUILT_KINDS)}")
    for start in range(0, count, ADDED_AT_ONCE):  # what FAISS computes on the way is never as large as the vectors
        index.add(vectors[start : start + ADDED_AT_ONCE])
    return index


def parameters_of(index: Any) -> dict[str, int]:
    """The numbers by which `index` was built and is searched, under the names that their papers give them."""
    if isinstance(index, faiss.IndexPreTransform):
        return {"bits": 1, "dimensions": index.index.d, "oversample": RABITQ_OVERSAMPLE}
    if isinstance(index, faiss.IndexHNSW):
        links, breadth = index.hnsw.nb_neighbors(1), index.hnsw.efConstruction
        return {"links": links, "build_breadth": breadth, "search_breadth": HNSW_SEARCH_BREADTH}
    codes = {"cells": index.nlist, "code_bytes": index.pq.M}
    return {**codes, "probes": min(index.nlist, IVF_PROBES), "oversample": IVF_OVERSAMPLE}


def candidates(index: Any, queries: NDArray[np.float32], width: int, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers (B, at least `width`) of the vectors that `index` holds closest to each of `queries` (B, D).

    Only vectors whose entry in `keep` (N,) is true are proposed. An approximate index may propose more than `width`
    or find fewer; places left over hold -1.
    """
    if isinstance(index, faiss.IndexPreTransform):
        return _candidates_by_bits(index, queries, width, keep)
    if isinstance(index, faiss.IndexIVFPQ):
        width *= IVF_OVERSAMPLE
    width = min(width, index.ntotal)
    _, numbers = index.search(queries, width, params=_search_parameters(index, width, keep))
    return np.asarray(numbers, dtype=np.int64)


def closest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], width: int, keep: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Numbers (B, min(width, number kept)) of the `vectors` (N, D) closest to each of `queries` (B, D), by comparing
    with all whose entry in `keep` (N,) is true. `vectors` may be a mapped file: they are not copied as a whole."""
    dropped = len(keep) - int(np.count_nonzero(keep))
    width = min(width, len(keep) - dropped)
    if width == 0:
        return np.empty((len(queries), 0), np.int64)
    if dropped <= width:
        return _without_dropped(_nearest(queries, vectors, width + dropped)[1], keep, width)
    if queries.size < BLAS_FROM_NUMBERS:
        return _scanned(queries, vectors, width, keep)
    return _copied(queries, vectors, width, np.flatnonzero(keep))


def erase_vectors(index: Any, numbers: NDArray[np.int64]) -> None:
    """Overwrites the vectors at `numbers` with zeros, in place: for a loaded index that is saved again, none in use."""
    if isinstance(index, faiss.IndexPreTransform):
        _erase_bits(faiss.downcast_index(index.index), numbers)
        return
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


def _candidates_by_bits(
    index: Any, queries: NDArray[np.float32], width: int, keep: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Candidates as above; none of a query for which fewer were found than estimated scores need."""
    num_kept = int(np.count_nonzero(keep))
    wanted = min(width * RABITQ_OVERSAMPLE, num_kept)
    asked = wanted if num_kept == len(keep) else math.ceil(wanted * RABITQ_MARGIN * len(keep) / num_kept)
    _, numbers = index.search(queries, min(asked, len(keep)))
    found = np.where((numbers >= 0) & keep[numbers], numbers, -1)
    found[(found >= 0).sum(axis=1) < wanted] = -1
    return found


def _nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    found: tuple[NDArray[np.float32], NDArray[np.int64]]
    found = faiss.knn(queries, vectors, width, metric=faiss.METRIC_INNER_PRODUCT)
    return found


def _without_dropped(numbers: NDArray[np.int64], keep: NDArray[np.bool_], width: int) -> NDArray[np.int64]:
    """The first `width` of each row of `numbers` that are kept."""
    kept_first = np.argsort(~keep[numbers], axis=1, kind="stable")[:, :width]
    return np.take_along_axis(numbers, kept_first, axis=1)


def _scanned(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], width: int, keep: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The closest that are kept, without copying them; once over the vectors for each query."""
    shape = len(queries), width
    scores, numbers = np.empty(shape, np.float32), np.empty(shape, np.int64)
    arrays = [faiss.swig_ptr(np.ascontiguousarray(array)) for array in (queries, vectors)]
    sizes = vectors.shape[1], len(queries), len(vectors), width
    faiss.knn_inner_product(*arrays, *sizes, faiss.swig_ptr(scores), faiss.swig_ptr(numbers), _selector(keep))
    return numbers


def _copied(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], width: int, kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The closest at the numbers `kept`: these are copied, a part at a time, so that matrices can be multiplied."""
    step = max(1, CHUNK_BYTES // vectors[:1].nbytes)
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(kept), step):
        chunk = kept[start : start + step]
        found, places = _nearest(queries, vectors[chunk], min(width, len(chunk)))
        scores, numbers = np.hstack([scores, found]), np.hstack([numbers, chunk[places]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        scores, numbers = np.take_along_axis(scores, best, axis=1), np.take_along_axis(numbers, best, axis=1)
    return numbers


def _erase_bits(index: Any, numbers: NDArray[np.int64]) -> None:
    packer = index.get_CodePacker()
    blocks = faiss.rev_swig_ptr(index.codes.get(), index.codes.size()).reshape(-1, packer.block_size)
    nothing = np.zeros(packer.code_size, np.uint8)
    for number in numbers.tolist():
        block, offset = divmod(number, packer.nvec)  # FAISS's check of a number beyond the first blocks is wrong
        packer.pack_1(nothing, offset, blocks[block : block + 1])


def _trained_rabitq(vectors: NDArray[np.float32], seed: int) -> Any:
    """Gao and Long 2024, "RaBitQ": the signs of the vector's numbers after a random rotation, and two factors."""
    dim = vectors.shape[1]
    if dim < RABITQ_LEAST:
        detail = f"a rabitq index needs vectors of {RABITQ_LEAST} numbers, these have {dim}"
        raise CoreError(detail, hint="choose index 'flat' or 'auto'")
    rotation = faiss.RandomRotationMatrix(dim, min(dim, RABITQ_MOST))
    rotation.init(seed)
    index = faiss.IndexPreTransform(rotation, faiss.IndexRaBitQFastScan(rotation.d_out, faiss.METRIC_INNER_PRODUCT))
    index.train(_sample(vectors, RABITQ_SAMPLE, seed))
    return index


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
    index.train(_sample(vectors, 2 * TRAINING_PER_CENTROID * max(cells, 2**PQ_BITS), seed))
    return index


def _sample(vectors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """At most `count` of `vectors`, at random. FAISS's own sampling takes all vectors through memory."""
    chosen = np.random.default_rng(seed).choice(len(vectors), min(count, len(vectors)), replace=False)
    return vectors[np.sort(chosen)]


def _num_cells(count: int) -> int:
    """Around 4 sqrt(N), as many as there are vectors to train."""
    return min(round(4 * math.sqrt(count)), count // TRAINING_PER_CENTROID)


def _num_codes(dim: int) -> int:
    """Bytes per vector: the largest divisor of D that leaves each at least `PQ_NUMBERS_PER_BYTE` numbers."""
    return max(codes for codes in range(1, max(1, dim // PQ_NUMBERS_PER_BYTE) + 1) if dim % codes == 0)


def _search_parameters(index: Any, width: int, keep: NDArray[np.bool_]) -> Any:
    # What a filter hides is still walked through: the narrower the filter, the wider the search.
    share = np.count_nonzero(keep) / len(keep)
    selector = None if share == 1 else _selector(keep)
    if isinstance(index, faiss.IndexHNSW):
        breadth = math.ceil(max(HNSW_SEARCH_BREADTH, width) / share)
        return faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
    return faiss.SearchParametersIVF(sel=selector, nprobe=min(index.nlist, math.ceil(IVF_PROBES / share)))


def _selector(keep: NDArray[np.bool_]) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
