"""FAISS indexes: every kind finds its vectors, survives the disk, refuses damage and forgets what is erased."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.index import (
    BLAS_FROM_NUMBERS,
    build_index,
    candidates,
    closest,
    erase_vectors,
    load_index,
    save_index,
    set_threads,
)
from reid_core.retrieval.kinds import BUILT_KINDS, IVFPQ_LEAST, choose_kind

COUNT = IVFPQ_LEAST
DIM = 64


def clustered(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around a hundred centres, as images lie around people."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((100, DIM), dtype=np.float32)
    vectors = centres[random.integers(100, size=count)] + 0.3 * random.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


VECTORS = clustered(COUNT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Threads that wait for each other on a busy machine take twenty times as long over such small vectors."""
    set_threads(1)


@pytest.fixture(scope="module", params=BUILT_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def index(kind: str) -> faiss.Index:
    return build_index(kind, VECTORS, seed=0)


def recall(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(wanted, got).mean() for got, wanted in zip(found, expected, strict=True)]))


def test_every_kind_proposes_the_closest_vectors(index: faiss.Index) -> None:
    expected = np.argsort(-VECTORS[:50] @ VECTORS.T, axis=1)[:, :10]

    found = candidates(index, VECTORS[:50], 10, np.ones(COUNT, np.bool_))

    assert recall(found, expected) > 0.95


def test_every_kind_proposes_only_what_the_filter_keeps(index: faiss.Index) -> None:
    keep = np.arange(COUNT) % 3 == 1
    expected = np.argsort(-np.where(keep, VECTORS[:50] @ VECTORS.T, -2), axis=1)[:, :10]

    found = candidates(index, VECTORS[:50], 10, keep)

    assert keep[found[found >= 0]].all()
    assert recall(found, expected) > 0.95


def test_vectors_are_compared_without_an_index() -> None:
    found = closest(VECTORS[:5], VECTORS[:100], 3, np.ones(100, np.bool_))

    np.testing.assert_array_equal(found, np.argsort(-VECTORS[:5] @ VECTORS[:100].T, axis=1)[:, :3])
    assert closest(VECTORS[:5], VECTORS[:2], 3, np.ones(2, np.bool_)).shape == (5, 2)


@pytest.mark.parametrize("num_queries", [1, 80])
@pytest.mark.parametrize("num_dropped", [0, 3, 50, 98, 100])
def test_only_what_is_kept_is_compared(num_queries: int, num_dropped: int) -> None:
    """Few are dropped from what is found; for few queries others are passed over, for many those kept are copied."""
    queries, keep = VECTORS[200 : 200 + num_queries], np.arange(100) >= num_dropped
    assert (queries.size < BLAS_FROM_NUMBERS) == (num_queries == 1)

    found = closest(queries, VECTORS[:100], 5, keep)

    expected = np.argsort(-np.where(keep, queries @ VECTORS[:100].T, -2), axis=1)[:, : min(5, 100 - num_dropped)]
    np.testing.assert_array_equal(found, expected)


def test_a_saved_index_answers_as_before(index: faiss.Index, tmp_path: Path) -> None:
    sha256 = save_index(index, tmp_path / "index.faiss")

    loaded = load_index(tmp_path / "index.faiss", sha256)

    keep = np.ones(COUNT, np.bool_)
    np.testing.assert_array_equal(candidates(loaded, VECTORS[:20], 10, keep), candidates(index, VECTORS[:20], 10, keep))
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    sha256 = save_index(build_index("hnsw", VECTORS[:100], seed=0), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(IndexCorrupt, match=rf"SHA-256 \w+, expected {sha256}"):
        load_index(path, sha256)


def test_a_truncated_or_missing_index_is_found(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    sha256 = save_index(build_index("hnsw", VECTORS[:100], seed=0), path)
    path.write_bytes(path.read_bytes()[:-7])

    with pytest.raises(IndexCorrupt, match="SHA-256"):
        load_index(path, sha256)
    path.unlink()
    with pytest.raises(IndexCorrupt, match="missing"):
        load_index(path, sha256)


def test_erased_vectors_are_gone_from_the_file_and_the_rest_is_found(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    loaded = load_index(path, save_index(build_index(kind, VECTORS, seed=0), path))
    lonely = np.flatnonzero(np.arange(COUNT) % 1000 == 5)

    erase_vectors(loaded, lonely)
    save_index(loaded, path)

    content = path.read_bytes()
    assert not any(VECTORS[number].tobytes() in content for number in lonely)
    keep = ~np.isin(np.arange(COUNT), lonely)
    expected = np.argsort(-np.where(keep, VECTORS[:50] @ VECTORS.T, -2), axis=1)[:, :10]
    assert loaded.ntotal == COUNT
    assert recall(candidates(loaded, VECTORS[:50], 10, keep), expected) > 0.95


def test_product_quantised_codes_of_erased_vectors_are_replaced() -> None:
    index = build_index("ivfpq", VECTORS, seed=0)
    everything = np.ones(COUNT, np.bool_)
    assert 7 in candidates(index, VECTORS[7:8], 1, everything)

    erase_vectors(index, np.array([7]))

    assert 7 not in candidates(index, VECTORS[7:8], 1, everything)


def test_the_bits_of_erased_vectors_are_zeros() -> None:
    count = 20_000
    index = build_index("rabitq", np.resize(VECTORS, (count, DIM)), seed=0)

    erase_vectors(index, np.array([7, 40, count - 1]))

    codes = faiss.downcast_index(index.index)
    packer = codes.get_CodePacker()
    blocks = faiss.rev_swig_ptr(codes.codes.get(), codes.codes.size()).reshape(-1, packer.block_size)
    places = [divmod(number, packer.nvec) for number in range(count)]
    erased = [
        number for number, (row, place) in enumerate(places) if not packer.unpack_1(blocks[row : row + 1], place).any()
    ]
    assert erased == [7, 40, count - 1]


def test_vectors_longer_than_faiss_can_add_up_are_found_by_their_bits() -> None:
    random = np.random.default_rng(0)
    people = random.standard_normal((500, 2688), dtype=np.float32)
    vectors = np.repeat(people, 10, axis=0) + random.standard_normal((5000, 2688), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    found = candidates(build_index("rabitq", vectors, seed=0), vectors[::100], 10, np.ones(5000, np.bool_))

    assert recall(found, np.argsort(-vectors[::100] @ vectors.T, axis=1)[:, :10]) > 0.95


def test_where_too_few_pass_a_filter_no_bits_are_trusted() -> None:
    index, keep = build_index("rabitq", VECTORS, seed=0), np.ones(COUNT, np.bool_)
    keep[np.argsort(-VECTORS @ VECTORS[0])[:2000]] = False

    assert (candidates(index, VECTORS[:1], 10, keep) == -1).all()


def test_vectors_too_short_for_bits_are_refused() -> None:
    with pytest.raises(CoreError, match="vectors of 64 numbers, these have 16"):
        build_index("rabitq", VECTORS[:, :16], seed=0)


@pytest.mark.parametrize(("kind", "count"), [("rabitq", 500), ("hnsw", 500), ("ivfpq", COUNT)])
def test_the_seed_decides_what_is_built(kind: str, count: int) -> None:
    first, again, other = (faiss.serialize_index(build_index(kind, VECTORS[:count], seed=seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_vectors_for_training_are_counted() -> None:
    with pytest.raises(CoreError, match="needs 9984 vectors to be trained on, there are 9983") as raised:
        build_index("ivfpq", VECTORS[:-1], seed=0)
    assert "flat" in raised.value.hint


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(CoreError, match="'annoy'") as raised:
        build_index("annoy", VECTORS, seed=0)
    assert "rabitq, hnsw, ivfpq" in raised.value.hint


@pytest.mark.parametrize(
    ("count", "dim", "kind"),
    [
        (0, 512, "flat"),
        (195_312, 512, "flat"),
        (195_313, 512, "rabitq"),
        (100_000, 2688, "rabitq"),
        (5_000_000, 512, "rabitq"),
        (8_000_000, 512, "ivfpq"),
        (10_000_000, 32, "flat"),
    ],
)
def test_auto_is_exact_for_as_long_as_that_is_quick(count: int, dim: int, kind: str) -> None:
    assert choose_kind(count, dim) == kind


@pytest.mark.parametrize("dim", [2, 17, 30])
def test_awkward_dimensions_can_be_quantised(dim: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((COUNT, dim), dtype=np.float32)

    assert build_index("ivfpq", vectors, seed=0).ntotal == COUNT


def test_threads_are_set_for_the_thread_that_asks() -> None:
    with ThreadPoolExecutor(1, initializer=set_threads, initargs=(1,)) as pool:
        assert pool.submit(faiss.omp_get_max_threads).result() == 1
