"""A zip's entries are counted before its directory is read, as it is and not only as it says."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reid_core.data.archive import extract
from reid_core.data.zip_directory import count_entries
from reid_core.errors import DatasetError

MANY = 70_000
"""More than an end record without its 64-bit extension can say."""


def pack(count: int, comment: bytes = b"", name: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(f"{name}{number}.jpg", b"")
        archive.comment = comment
    return file.getvalue()


@given(st.integers(0, 30), st.binary(max_size=300), st.binary(max_size=30))
def test_entries_are_counted_as_zipfile_counts_them(count: int, comment: bytes, before: bytes) -> None:
    assume(b"PK" not in comment)  # `zipfile` itself takes what looks like an end record in it for the real one
    content = before + pack(count, comment)
    expected = len(zipfile.ZipFile(io.BytesIO(content)).infolist())
    assert count_entries(io.BytesIO(content), most=100) == expected


def test_no_more_than_asked_for_are_counted() -> None:
    assert count_entries(io.BytesIO(pack(20)), most=20) == 20
    assert count_entries(io.BytesIO(pack(20)), most=7) == 8


def test_large_archives_are_counted_by_their_64_bit_record() -> None:
    content = pack(MANY)
    assert count_entries(io.BytesIO(content), most=10**6) == MANY
    assert count_entries(io.BytesIO(content), most=MANY - 1) == MANY


def test_a_directory_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(pack(MANY))
    tracemalloc.start()
    with pytest.raises(DatasetError, match="more than 60000 entries"):
        extract(path, tmp_path / "out", max_bytes=10**9, max_files=60_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000, "a ZipInfo for each entry takes 30 MB"
    assert list(tmp_path.iterdir()) == [path]


def test_an_end_record_that_lies_hides_no_entries() -> None:
    content = bytearray(pack(20))
    struct.pack_into("<HH", content, len(content) - 14, 1, 1)
    assert count_entries(io.BytesIO(content), most=19) == 20
    struct.pack_into("<HH", content, len(content) - 14, 60_000, 60_000)
    assert count_entries(io.BytesIO(content), most=100) == 101


@pytest.mark.parametrize("size", [0, 10, 21])
def test_without_an_end_record_it_is_no_zip(size: int) -> None:
    with pytest.raises(zipfile.BadZipFile, match="no end record"):
        count_entries(io.BytesIO(b"PK\5\6".ljust(size, b"\1")[:size]), most=10)


def test_a_directory_that_is_not_there_or_out_of_proportion_is_damage() -> None:
    content = bytearray(pack(20))
    struct.pack_into("<L", content, len(content) - 10, 2**31)
    with pytest.raises(zipfile.BadZipFile, match="before position"):
        count_entries(io.BytesIO(content), most=2**24)
    with pytest.raises(zipfile.BadZipFile, match="bytes for 20 entries at most"):
        count_entries(io.BytesIO(pack(20, name=2000 * "long")), most=20)
    content = bytearray(pack(20))
    content[content.index(b"PK\1\2")] = 0
    with pytest.raises(zipfile.BadZipFile, match="no entry at position"):
        count_entries(io.BytesIO(content), most=100)
