"""The map store: what the matcher reads is what was written, to half precision or to 127ths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.retrieval.maps import MAP_DTYPES, MapStore, map_bytes

SHAPE = (6, 2, 8)


def make_maps(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, h * w, c) with a unit vector at every location."""
    maps = np.random.default_rng(seed).standard_normal((count, 12, 8), dtype=np.float32)
    return maps / np.linalg.norm(maps, axis=-1, keepdims=True)


def filled(path: Path, count: int, dtype: str = "float16") -> MapStore:
    store = MapStore.create(path, SHAPE, dtype)
    store.write(0, make_maps(count))
    return store


def test_maps_are_read_back_in_half_precision(tmp_path: Path) -> None:
    store = filled(tmp_path / "maps", 5)
    read = store.read([4, 0])
    assert (read.shape, read.dtype) == ((2, 12, 8), np.float16)
    np.testing.assert_array_equal(read, make_maps(5)[[4, 0]].astype(np.float16))


def test_int8_is_half_as_large_and_wrong_by_half_a_127th_at_most(tmp_path: Path) -> None:
    store = filled(tmp_path / "maps", 5, "int8")
    read = store.read(range(5))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, make_maps(5), rtol=0, atol=0.5 / 127 + 1e-6)
    assert (map_bytes((24, 8, 64), "float16"), map_bytes((24, 8, 64), "int8")) == (24_576, 12_288)
    filled(tmp_path / "halves", 5)
    sizes = [(tmp_path / name).stat().st_size - 4096 for name in ("halves", "maps")]
    assert sizes == [5 * map_bytes(SHAPE, dtype) for dtype in MAP_DTYPES]


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_maps_that_were_read_can_be_written_again_without_loss(tmp_path: Path, dtype: str) -> None:
    read = filled(tmp_path / "maps", 50, dtype).read(range(50))
    copy = MapStore.create(tmp_path / "copy", SHAPE, dtype)
    copy.write(0, read)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "maps").read_bytes()


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_what_is_no_map_is_refused(tmp_path: Path, dtype: str) -> None:
    store = filled(tmp_path / "maps", 2, dtype)
    broken = make_maps(1)
    broken[0, 7, 2] = np.nan
    with pytest.raises(CoreError, match="not finite"):
        store.write(2, broken)
    with pytest.raises(CoreError, match="shape"):
        store.write(2, make_maps(1).reshape(1, *SHAPE))
    assert len(store) == 2


def test_an_unknown_dtype_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CoreError, match="'float8'") as caught:
        MapStore.create(tmp_path / "maps", SHAPE, "float8")
    assert "float16, int8" in caught.value.hint


def test_damage_is_told_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "maps"
    filled(path, 3)
    with pytest.raises(IndexCorrupt, match="expected"):
        MapStore.open(path, SHAPE, "int8")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexCorrupt, match="2 records, 3 are needed") as caught:
        MapStore.open(path, SHAPE, "float16", count=3)
    assert "index job" in caught.value.hint
    path.unlink()
    with pytest.raises(IndexCorrupt, match="missing"):
        MapStore.open(path, SHAPE, "float16")


def test_held_maps_outlive_their_file_and_the_others_do_not(tmp_path: Path) -> None:
    store = filled(tmp_path / "maps", 3)
    store.hold(3)
    (tmp_path / "maps").unlink()
    assert store.read([2]).any()
    with pytest.raises(FileNotFoundError):
        store.read([3])


@pytest.mark.parametrize("dtype", MAP_DTYPES)
def test_an_erased_map_is_zero_and_gone_from_the_file(tmp_path: Path, dtype: str) -> None:
    store = filled(tmp_path / "maps", 3, dtype)
    size = map_bytes(SHAPE, dtype)
    content = (tmp_path / "maps").read_bytes()
    needles = [content[4096 + place * size :][:size] for place in range(3)]
    store.erase([1])
    assert not store.read([1]).any()
    assert [needle in (tmp_path / "maps").read_bytes() for needle in needles] == [True, False, True]
