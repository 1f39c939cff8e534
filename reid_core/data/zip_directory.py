"""Counts a zip's entries without reading its directory into memory, as `zipfile` does at once."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO

_END, _END_SIZE = b"PK\5\6", 22
_LOCATOR, _LOCATOR_SIZE = b"PK\6\7", 20
_END64, _END64_SIZE = b"PK\6\6", 56
_ENTRY, _ENTRY_SIZE = b"PK\1\2", 46
_MAX_COMMENT = 65535

_DIRECTORY_BYTES = 1024
"""The largest entry, name included, of a directory that anybody packed."""


def count_entries(file: IO[bytes], *, most: int) -> int:
    """The number of entries, or one more than `most` where there are more, by the end record or in truth.

    The position in `file` is where it was before.

    Raises:
        zipfile.BadZipFile: there is no end record, or the directory is not where it says or out of all proportion.
    """
    position = file.tell()
    claimed, start, size = _end_record(file)
    if size > most * _DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"a directory of {size} bytes for {most} entries at most")
    count = claimed if claimed > most else _walk(file, start, start + size, most)
    file.seek(position)
    return min(max(count, claimed), most + 1)


def _end_record(file: IO[bytes]) -> tuple[int, int, int]:
    """The entries that the end record claims, and where its directory begins and how long it is."""
    length = file.seek(0, io.SEEK_END)
    tail_start = max(0, length - _END_SIZE - _MAX_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    # First without a comment, then by the last signature: as `zipfile` looks for it.
    found = len(tail) - _END_SIZE if tail[-_END_SIZE:].startswith(_END) and tail.endswith(b"\0\0") else tail.rfind(_END)
    if found < 0 or len(tail) - found < _END_SIZE:
        raise zipfile.BadZipFile("there is no end record")
    claimed, size = struct.unpack_from("<10xHL", tail, found)
    end = tail_start + found
    if end >= _LOCATOR_SIZE + _END64_SIZE:
        file.seek(end - _LOCATOR_SIZE - _END64_SIZE)
        large = file.read(_END64_SIZE + _LOCATOR_SIZE)
        if large.startswith(_END64) and large[_END64_SIZE:].startswith(_LOCATOR):
            claimed, size = struct.unpack_from("<32xQQ", large)
            end -= len(large)
    if size > end:
        raise zipfile.BadZipFile(f"a directory of {size} bytes before position {end}")
    return claimed, end - size, size


def _walk(file: IO[bytes], start: int, end: int, most: int) -> int:
    """The entries that are there, whatever is claimed; no more than one beyond `most` are counted."""
    file.seek(start)
    count, position = 0, start
    while position < end and count <= most:
        header = file.read(_ENTRY_SIZE)
        if len(header) < _ENTRY_SIZE or not header.startswith(_ENTRY):
            raise zipfile.BadZipFile(f"there is no entry at position {position}")
        names = sum(struct.unpack_from("<28xHHH", header))
        position = file.seek(names, io.SEEK_CUR)
        count += 1
    return count
