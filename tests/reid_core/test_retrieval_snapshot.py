"""Snapshots answer as a plain comparison with every image does, whatever the index, the filters and the history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.filters import Filters
from reid_core.retrieval.index import build_index, set_threads
from reid_core.retrieval.kinds import BUILT_KINDS, IVFPQ_LEAST
from reid_core.retrieval.snapshot import NO_TIME, Snapshot
from reid_core.retrieval.store import FeatureStore

DIM = 64
FLOAT32 = np.dtype(np.float32)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Threads that wait for each other on a busy machine take twenty times as long over such small vectors."""
    set_threads(1)


def unit(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around a hundred centres, as images lie around people."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((100, DIM), dtype=np.float32)
    vectors = centres[random.integers(100, size=count)] + 0.3 * random.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def stored(path: Path, vectors: NDArray[np.float32]) -> FeatureStore:
    store = FeatureStore.create(path / "vectors", (DIM,), FLOAT32)
    store.write(0, vectors)
    return store


def opened(path: Path, vectors: NDArray[np.float32], base: Any = None) -> Snapshot:
    """A gallery of `vectors` by three cameras in turn, a minute apart."""
    cameras = [str(position % 3) for position in range(len(vectors))]
    times = [NOON + timedelta(minutes=position) for position in range(len(vectors))]
    return Snapshot.open(stored(path, vectors), cameras, times, base)


def brute(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, match: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Positions of the k best in double precision; duplicates score equal and rank by position."""
    scores = (queries[:, None].astype(np.float64) * vectors[None].astype(np.float64)).sum(axis=2)
    if match is not None:
        scores[:, ~match] = -np.inf
        k = min(k, int(match.sum()))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("num_queries", [1, 3, 40])
def test_flat_search_equals_comparing_with_every_image(tmp_path: Path, num_queries: int) -> None:
    vectors, queries = unit(2000), unit(num_queries, seed=1)

    scores, positions = opened(tmp_path, vectors).search(queries, 10)

    np.testing.assert_array_equal(positions, brute(vectors, queries, 10))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, positions, axis=1), atol=1e-6)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("copies", [2, 30, 700])
@pytest.mark.parametrize("num_queries", [1, 40])
def test_equal_images_score_equal_and_rank_by_position(tmp_path: Path, copies: int, num_queries: int) -> None:
    random = np.random.default_rng(0)
    vectors = np.repeat(unit(2100 // copies), copies, axis=0)[random.permutation(2100)]
    queries = unit(num_queries, seed=1)

    scores, positions = opened(tmp_path, vectors).search(queries, 10)

    np.testing.assert_array_equal(positions, brute(vectors, queries, 10))
    same = (vectors[positions[:, 1:]] == vectors[positions[:, :-1]]).all(axis=2)
    assert same.any()
    assert (scores[:, 1:] == scores[:, :-1])[same].all()


def test_many_equal_images_at_the_cut_rank_by_position(tmp_path: Path) -> None:
    """Better images come after the equal ones, so that an index that keeps few drops the first of these."""
    far, near = unit(2)
    vectors = np.concatenate([np.tile(far, (300, 1)), np.tile(near, (5, 1))])

    _, positions = opened(tmp_path, vectors).search(near[None], 10)

    assert positions.tolist() == [[300, 301, 302, 303, 304, 0, 1, 2, 3, 4]]


def test_equal_images_score_equal_wherever_they_stand(tmp_path: Path) -> None:
    """A matrix product rounds the last rows of 512 numbers differently."""
    random = np.random.default_rng(0)
    vector, query = random.standard_normal((2, 512), dtype=np.float32) / np.float32(np.sqrt(512))
    store = FeatureStore.create(tmp_path / "vectors", (512,), FLOAT32)
    store.write(0, np.tile(vector, (7, 1)))

    scores, positions = Snapshot.open(store, [""] * 7, [None] * 7).search(query[None], 7)

    assert len(set(scores[0].tolist())) == 1
    assert positions.tolist() == [list(range(7))]


def test_equal_images_under_an_index_and_beside_it_rank_by_position(tmp_path: Path) -> None:
    vectors = np.tile(unit(7), (9, 1))
    store = stored(tmp_path, vectors)
    snapshot = Snapshot.open(store, ["0"] * 40, [None] * 40, build_index("hnsw", vectors[:40], seed=0))
    for count in (13, 6, 3, 1):
        snapshot = snapshot.with_added(["0"] * count, [None] * count)

    _, positions = snapshot.search(vectors[:7], 5)

    np.testing.assert_array_equal(positions, np.arange(7)[:, None] + 7 * np.arange(5))


@pytest.mark.parametrize(
    "filters",
    [
        Filters(cameras=("1",)),
        Filters(cameras=("0", "2")),
        Filters(exclude_cameras=("1",)),
        Filters(cameras=("0", "1"), exclude_cameras=("1",)),
        Filters(captured_after=NOON + timedelta(minutes=500)),
        Filters(cameras=("2",), captured_before=NOON + timedelta(minutes=15)),
        Filters(captured_after=NOON + timedelta(minutes=7), captured_before=NOON + timedelta(minutes=12)),
        Filters(cameras=("nobody's",)),
    ],
)
def test_filters_come_before_the_cut(tmp_path: Path, filters: Filters) -> None:
    vectors, queries = unit(1500), unit(4, seed=1)
    snapshot = opened(tmp_path, vectors)

    _, positions = snapshot.search(queries, 20, keep=snapshot.keep(filters))

    position = np.arange(1500)
    match = np.array([not filters.cameras or str(p % 3) in filters.cameras for p in position])
    match &= np.array([str(p % 3) not in filters.exclude_cameras for p in position])
    times = np.array([NOON + timedelta(minutes=int(p)) for p in position])
    match &= filters.captured_after is None or times >= filters.captured_after
    match &= filters.captured_before is None or times < filters.captured_before
    np.testing.assert_array_equal(positions, brute(vectors, queries, 20, match))
    assert positions.shape == (4, min(20, match.sum()))


def test_images_without_a_time_match_no_time_filter(tmp_path: Path) -> None:
    snapshot = Snapshot.open(stored(tmp_path, unit(3)), ["", "", ""], [None, NOON, datetime(2024, 5, 1, 12)])

    assert snapshot.captured_at[0] == NO_TIME
    assert snapshot.captured_at[1] == snapshot.captured_at[2] == 1_714_564_800_000_000
    assert snapshot.keep(Filters(captured_before=NOON + timedelta(days=1))).tolist() == [False, True, True]
    assert snapshot.keep(Filters(captured_after=NOON)).tolist() == [False, True, True]
    assert snapshot.keep(Filters()).all()


def test_images_without_a_camera_can_be_asked_for_and_left_out(tmp_path: Path) -> None:
    snapshot = Snapshot.open(stored(tmp_path, unit(3)), ["", "7", ""], [None] * 3)

    assert snapshot.keep(Filters(cameras=("",))).tolist() == [True, False, True]
    assert snapshot.keep(Filters(exclude_cameras=("",))).tolist() == [False, True, False]


def test_deleted_images_never_come_back_and_the_older_snapshot_keeps_them(tmp_path: Path) -> None:
    vectors = unit(300)
    before = opened(tmp_path, vectors)

    after = before.without([5, 17]).without(np.arange(100, 200))

    match = np.ones(300, np.bool_)
    match[[5, 17, *range(100, 200)]] = False
    np.testing.assert_array_equal(after.search(vectors[:20], 400)[1], brute(vectors, vectors[:20], 400, match))
    assert before.search(vectors[5:6], 1)[1].item() == 5
    assert len(before.search(vectors[5:6], 400)[1][0]) == 300


def test_images_added_in_many_small_steps_are_found_at_once(tmp_path: Path) -> None:
    vectors, queries = unit(700), unit(3, seed=1)
    store = stored(tmp_path, vectors[:1])
    snapshot = Snapshot.open(store, ["0"], [None])
    steps = np.random.default_rng(0).integers(1, 5, size=200).tolist()

    for step in steps:
        start = len(snapshot)
        store.write(start, vectors[start : start + step])
        snapshot = snapshot.with_added([str(start % 4)] * step, [NOON] * step)
        np.testing.assert_array_equal(snapshot.search(queries, 5)[1], brute(vectors[: start + step], queries, 5))

    assert len(snapshot) == 1 + sum(steps)
    assert [len(part) for part in (snapshot.cameras, snapshot.captured_at, snapshot.alive)] == [len(snapshot)] * 3
    assert sorted(snapshot.camera_names) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("k", [5, 6, 50])
def test_more_results_than_images_gives_every_image_once(tmp_path: Path, k: int) -> None:
    scores, positions = opened(tmp_path, unit(5)).search(unit(2, seed=1), k)

    assert scores.shape == (2, 5)
    assert [sorted(row) for row in positions.tolist()] == [[0, 1, 2, 3, 4]] * 2


def test_an_empty_gallery_has_no_results(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, unit(0))

    scores, positions = snapshot.search(unit(3), 10, keep=snapshot.keep(Filters(cameras=("1",))))

    assert scores.shape == positions.shape == (3, 0)


def test_a_gallery_of_deleted_images_has_no_results(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, unit(4)).without([0, 1, 2, 3])

    assert snapshot.search(unit(2), 10)[1].shape == (2, 0)


@pytest.fixture(scope="module", params=("flat", *BUILT_KINDS))
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A gallery whose first images lie under an index of each kind, with more added since and some deleted."""
    vectors = unit(IVFPQ_LEAST + 500)
    base = None if request.param == "flat" else build_index(request.param, vectors[:IVFPQ_LEAST], seed=0)
    snapshot = opened(tmp_path_factory.mktemp(request.param), vectors, base)
    return snapshot.without(np.arange(0, len(vectors), 7))


@pytest.mark.parametrize("num_matching", [1, 12, 300, 4000, 8900])
def test_every_kind_returns_as_many_as_match(indexed: Snapshot, num_matching: int) -> None:
    keep = np.zeros(len(indexed), np.bool_)
    keep[np.random.default_rng(0).choice(np.flatnonzero(indexed.alive), num_matching, replace=False)] = True

    scores, positions = indexed.search(unit(8, seed=2), 3000, keep=keep)

    assert positions.shape == (8, min(3000, num_matching))
    assert keep[positions].all()
    assert all(len(set(row)) == len(row) for row in positions.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


@given(
    top_k=st.integers(1, 400),
    cameras=st.sets(st.sampled_from(["0", "1", "2", "nobody's"])),
    excluded=st.sets(st.sampled_from(["0", "1", "2"]), max_size=2),
    window=st.tuples(st.integers(-10, IVFPQ_LEAST + 600), st.integers(0, IVFPQ_LEAST)),
    hidden=st.one_of(st.just(0), st.integers(1, IVFPQ_LEAST)),
    seed=st.integers(0, 2**16),
)
@configured(max_examples=60, deadline=None)
def test_top_k_results_come_back_whenever_that_many_match(
    indexed: Snapshot,
    top_k: int,
    cameras: set[str],
    excluded: set[str],
    window: tuple[int, int],
    hidden: int,
    seed: int,
) -> None:
    """Also where the images closest to the query, as many as `hidden`, are those that the filter leaves out."""
    query = unit(1, seed)
    after, minutes = NOON + timedelta(minutes=window[0]), timedelta(minutes=window[1])
    filters = Filters(tuple(sorted(cameras)), tuple(sorted(excluded)), after, after + minutes)
    keep = indexed.keep(filters)
    keep[np.argsort(-indexed.store.rows(0, len(indexed)) @ query[0])[:hidden]] = False

    scores, positions = indexed.search(query, top_k, keep=keep)

    place = np.arange(len(indexed))
    match = (place >= window[0]) & (place < window[0] + window[1]) & (place % 7 != 0) & keep
    match &= np.isin((place % 3).astype(str), sorted((cameras or {"0", "1", "2"}) - excluded))
    assert positions.shape == scores.shape == (1, min(top_k, match.sum()))
    assert match[positions].all()
    assert len(set(positions[0].tolist())) == positions.shape[1]


@pytest.mark.parametrize("share", [0.001, 0.03, 0.3, 1.0])
def test_every_kind_finds_the_closest_with_exact_scores(indexed: Snapshot, share: float) -> None:
    vectors, queries = indexed.store.rows(0, len(indexed)), unit(40, seed=2)
    keep = np.random.default_rng(0).random(len(indexed)) < share

    scores, positions = indexed.search(queries, 10, keep=keep)

    expected = brute(vectors, queries, 10, keep & indexed.alive)
    assert np.mean([np.isin(*rows).mean() for rows in zip(expected, positions, strict=True)]) > 0.97
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, positions, axis=1), atol=1e-6)


def test_narrow_filters_are_exact_however_poor_the_index(tmp_path: Path) -> None:
    vectors, queries = unit(1000), unit(40, seed=2)
    of_other_vectors = build_index("hnsw", unit(1000, seed=3), seed=0)
    snapshot, match = opened(tmp_path, vectors, of_other_vectors), np.arange(1000) % 5 == 3

    _, positions = snapshot.search(queries, 10, keep=match)

    np.testing.assert_array_equal(positions, brute(vectors, queries, 10, match))


@pytest.mark.parametrize("chunk_bytes", [5_000, 32 * 2**20])
def test_many_queries_under_a_filter_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(f"{build_index.__module__}.CHUNK_BYTES", chunk_bytes)
    vectors, queries = unit(1000), unit(300, seed=2)
    snapshot = opened(tmp_path, vectors, build_index("hnsw", vectors[:700], seed=0))

    _, positions = snapshot.search(queries, 10, keep=snapshot.keep(Filters(exclude_cameras=("1",))))

    np.testing.assert_array_equal(positions, brute(vectors, queries, 10, np.arange(1000) % 3 != 1))


def test_searches_go_on_while_snapshots_are_swapped(tmp_path: Path) -> None:
    vectors, queries = unit(600), unit(2, seed=1)
    store = stored(tmp_path, vectors[:100])
    held = [Snapshot.open(store, ["0"] * 100, [None] * 100)]

    def search_often() -> None:
        for _ in range(150):
            snapshot = held[0]
            _, positions = snapshot.search(queries, 5)
            expected = brute(vectors[: len(snapshot)], queries, 5, snapshot.alive)
            np.testing.assert_array_equal(positions, expected)

    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(search_often) for _ in range(3)]
        for start in range(100, 600, 5):
            store.write(start, vectors[start : start + 5])
            held[0] = held[0].with_added(["0"] * 5, [None] * 5).without([start - 90])
        for search in searches:
            search.result()


def test_the_columns_of_a_snapshot_cannot_be_changed(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, unit(5)).without([1])

    for column in (snapshot.cameras, snapshot.captured_at, snapshot.alive):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_what_does_not_fit_the_gallery_is_refused(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, unit(5))

    with pytest.raises(CoreError, match=r"64 numbers, the query has shape \(1, 8\)"):
        snapshot.search(np.ones((1, 8), np.float32), 3)
    with pytest.raises(CoreError, match="not finite"):
        snapshot.search(np.full((1, DIM), np.nan, np.float32), 3)
    with pytest.raises(CoreError, match="at least 1, got 0"):
        snapshot.search(unit(1), 0)
    with pytest.raises(CoreError, match="for 4 images, this snapshot has 5"):
        snapshot.search(unit(1), 3, keep=np.ones(4, np.bool_))


def test_opening_more_than_is_stored_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, unit(5))

    with pytest.raises(IndexCorrupt, match="holds 5 records, 6 are needed"):
        Snapshot.open(store, ["0"] * 6, [None] * 6)
    with pytest.raises(IndexCorrupt, match="covers 5 images of 4"):
        Snapshot.open(store, ["0"] * 4, [None] * 4, build_index("hnsw", unit(5), seed=0))


def test_a_camera_without_a_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CoreError, match="2 cameras and 1 times"):
        Snapshot.open(stored(tmp_path, unit(2)), ["0", "1"], [None])


def test_local_maps_are_not_searched(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "maps", (6, 2, 8), np.dtype(np.float16))

    with pytest.raises(CoreError, match="dtype float16"):
        Snapshot.open(store, [], [])
