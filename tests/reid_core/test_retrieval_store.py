"""The feature store: what is written is read back, damage is found, and erased bytes are gone from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.store import HEADER_BYTES, FeatureStore, write_atomically

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)


def records(count: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)


def filled(path: Path, count: int, dim: int = 16) -> FeatureStore:
    store = FeatureStore.create(path, (dim,), FLOAT32)
    store.write(0, records(count, dim))
    return store


def test_records_are_read_back_from_any_positions_in_any_shape(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 50)

    expected = records(50, 16)
    np.testing.assert_array_equal(store.read([7, 3, 7]), expected[[7, 3, 7]])
    np.testing.assert_array_equal(store.read(np.array([[1, 2], [3, 4]])), expected[[[1, 2], [3, 4]]])
    np.testing.assert_array_equal(store.rows(10, 20), expected[10:20])
    assert store.read([]).shape == (0, 16)
    assert store.rows(0, 0).shape == (0, 16)


def test_local_maps_are_kept_in_half_precision(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "maps", (6, 2, 8), FLOAT16)
    store.write(0, records(5, 6, 2, 8))

    reopened = FeatureStore.open(tmp_path / "maps", (6, 2, 8), FLOAT16, count=5)

    np.testing.assert_array_equal(reopened.read([4, 0]), records(5, 6, 2, 8)[[4, 0]].astype(np.float16))


def test_records_can_be_asked_for_ahead_wherever_they_lie(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "maps", (7, 3, 100), FLOAT32)  # 8,400 bytes: no whole number of pages
    store.write(0, records(9, 7, 3, 100))
    store.prefetch([8, 0, 3])
    store.prefetch([])
    np.testing.assert_array_equal(store.read([8, 0, 3]), records(9, 7, 3, 100)[[8, 0, 3]])
    for position in (-1, 9):
        with pytest.raises(IndexCorrupt):
            store.prefetch([position])


def test_a_reader_sees_what_another_process_appended(tmp_path: Path) -> None:
    writer = filled(tmp_path / "vectors", 3)
    reader = FeatureStore.open(tmp_path / "vectors", (16,), FLOAT32, count=3)
    reader.read([2])

    writer.write(3, records(4, 16, seed=1))

    np.testing.assert_array_equal(reader.read([6, 2]), [records(4, 16, seed=1)[3], records(3, 16)[2]])


def test_what_a_crashed_writer_left_is_overwritten(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 5)
    store.write(5, records(10, 16, seed=8))
    with store.path.open("ab") as file:
        file.write(b"half a record")

    reopened = FeatureStore.open(store.path, (16,), FLOAT32, count=5)
    reopened.write(5, records(2, 16, seed=9))

    np.testing.assert_array_equal(reopened.rows(0, 7), np.concatenate([records(5, 16), records(2, 16, seed=9)]))


def test_an_open_reader_sees_a_record_written_over_a_crashed_one(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 6)
    store.read([5])

    store.write(5, records(1, 16, seed=9))

    np.testing.assert_array_equal(store.read([5]), records(1, 16, seed=9))


def test_erased_records_are_zero_in_the_file_and_the_others_stay(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 20)
    secret = records(20, 16)[11].tobytes()
    assert secret in store.path.read_bytes()

    store.erase([11, 4])

    assert secret not in store.path.read_bytes()
    assert not store.read([11, 4]).any()
    others = [position for position in range(20) if position not in (11, 4)]
    np.testing.assert_array_equal(store.read(others), records(20, 16)[others])


def test_opening_as_another_shape_names_both(tmp_path: Path) -> None:
    filled(tmp_path / "vectors", 3)

    with pytest.raises(IndexCorrupt, match=r"\[16\].*expected.*\[32\]"):
        FeatureStore.open(tmp_path / "vectors", (32,), FLOAT32)
    with pytest.raises(IndexCorrupt, match=r"<f4.*expected.*<f2"):
        FeatureStore.open(tmp_path / "vectors", (16,), FLOAT16)


def test_a_truncated_file_is_found_when_it_is_opened(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 10)
    with store.path.open("r+b") as file:
        file.truncate(HEADER_BYTES + 9 * store.record_bytes + 1)

    with pytest.raises(IndexCorrupt, match="holds 9 records, 10 are needed"):
        FeatureStore.open(store.path, (16,), FLOAT32, count=10)
    with pytest.raises(IndexCorrupt, match="holds 9 records, 10 are needed"):
        FeatureStore(store.path, (16,), FLOAT32).read([9])


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 5000, b'{"shape": [16], "dtype": "<f4"}'])
def test_a_file_without_a_whole_header_is_no_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vectors").write_bytes(content)

    with pytest.raises(IndexCorrupt, match="not a feature store"):
        FeatureStore.open(tmp_path / "vectors", (16,), FLOAT32)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt, match="missing"):
        FeatureStore.open(tmp_path / "vectors", (16,), FLOAT32)


def test_positions_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "vectors", 5)

    with pytest.raises(IndexCorrupt, match="holds 5 records, 7 are needed"):
        store.write(7, records(1, 16))
    with pytest.raises(IndexCorrupt, match="holds 5 records, 6 are needed"):
        store.erase([5])
    with pytest.raises(IndexCorrupt, match="no position -1"):
        store.read([-1])


def test_records_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "maps", (16,), FLOAT16)

    with pytest.raises(CoreError, match=r"\(16,\), got \(8,\)"):
        store.write(0, records(1, 8))
    with pytest.raises(CoreError, match="not finite"):
        store.write(0, np.full((1, 16), np.nan, np.float32))
    with pytest.raises(CoreError, match="not finite"):
        store.write(0, np.full((1, 16), 1e6, np.float32))
    assert len(store) == 0


def test_creating_never_replaces_a_store(tmp_path: Path) -> None:
    filled(tmp_path / "vectors", 5)

    with pytest.raises(CoreError, match="already exists"):
        FeatureStore.create(tmp_path / "vectors", (16,), FLOAT32)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda scratch: scratch.write_bytes(b"before"))

    def crash(scratch: Path) -> None:
        scratch.write_bytes(b"aft")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, crash)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
