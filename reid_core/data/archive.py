"""Unpacking an uploaded data set: zip, tar or tar.gz, from senders who need not be trusted."""

from __future__ import annotations

import errno
import gzip
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from reid_core.data.archive_names import Names, write_note
from reid_core.data.debris import is_debris
from reid_core.data.listing import printable
from reid_core.data.zip_directory import count_entries
from reid_core.errors import DatasetError

_CHUNK = 1 << 20
_TAR_OVERHEAD = 4096
"""Bytes of headers and padding that one entry of a tar may have beside its content."""

_UTF8_FLAG = 0x800
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others decompress without a limit on memory in `zipfile`, so one chunk could fill it."""


def extract(
    archive: Path, into: Path, *, max_bytes: int, max_files: int, min_free_bytes: int = 0, encoding: str = ""
) -> None:
    """The files of an archive below `into`, which appears complete or not at all.

    Names that do not say how they are encoded are read by `encoding`, or as `archive_names` finds out, which leaves a
    note of that.

    What operating systems leave in archives (`__MACOSX`, hidden files) is skipped. Bytes are counted as they are
    decompressed, whatever the archive claims; entries of every kind count towards `max_files`. `min_free_bytes` of the
    disk stay free.

    Raises:
        DatasetError: no archive of a kind we know, damaged, encrypted, too large, empty, with entries that are neither
            files nor folders, or with names that lead out of the folder or whose encoding must be said.
        OSError: the disk is full (ENOSPC, also where less than `min_free_bytes` would stay free) or cannot be written.
    """
    if into.exists():
        raise DatasetError(f"'{into.name}' is there already.", hint="Unpack into a new folder.")
    into.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    names = Names(encoding)
    try:
        with archive.open("rb") as file, _as_dataset_error():
            entries = _entries(file, names, max_bytes, max_files)
            _write_all(entries, unfinished, max_bytes, max_files, min_free_bytes)
        if names.read_as:
            write_note(unfinished, names.read_as)
        unfinished.rename(into)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: str  # "file", "folder", or a word for something refused
    open: Callable[[], IO[bytes]]


def _entries(file: IO[bytes], names: Names, max_bytes: int, max_files: int) -> Iterator[_Entry]:
    start = file.read(4)
    file.seek(0)
    if start in (b"PK\3\4", b"PK\5\6"):
        return _zip_entries(file, names, max_files)
    limit = max_bytes + max_files * _TAR_OVERHEAD + _CHUNK
    unzipped = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if start.startswith(b"\x1f\x8b") else file
    return _tar_entries(_Forward(unzipped, limit), names)


def _zip_entries(file: IO[bytes], names: Names, max_files: int) -> Iterator[_Entry]:
    if count_entries(file, most=max_files) > max_files:
        raise _too_large(f"{max_files} entries", "REID_MAX_ARCHIVE_FILES")
    with zipfile.ZipFile(file) as archive:
        names.settle([raw for info in archive.infolist() if (raw := _raw_name(info)) is not None])
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise DatasetError("The archive is encrypted.", hint="Pack it without a password.")
            if info.compress_type not in _ZIP_METHODS:
                raise DatasetError(
                    f"'{info.filename}' is packed by method {info.compress_type}; only 0 and 8 (deflate) are read.",
                    hint="Pack it as an ordinary zip or as tar.gz.",
                )
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = mode in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = ("folder" if info.is_dir() else "file") if plain else "link or device"
            raw = _raw_name(info)
            yield _Entry(info.filename if raw is None else names.read(raw), kind, partial(archive.open, info))


def _raw_name(info: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name that does not say how it is encoded, else None."""
    if info.flag_bits & _UTF8_FLAG or info.filename != info.orig_filename:  # or a second name tells it
        return None
    return info.orig_filename.encode("cp437")  # which zipfile has read it as


def _tar_entries(stream: _Forward, names: Names) -> Iterator[_Entry]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
        for member in archive:
            kind = "file" if member.isreg() else "folder" if member.isdir() else "link or device"
            raw = member.name.encode(errors="surrogateescape")
            name = member.name if printable(member.name) == member.name else names.read(raw)
            yield _Entry(name, kind, partial(_open_member, archive, member))
    # tarfile takes a damaged or missing header for the end, and gzip checks its sum only where it ends.
    if stream.last_read != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("a header cannot be read")
    while stream.read(_CHUNK):
        pass


def _open_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"'{member.name}' has no content")
    return source


class _Forward:
    """A tar's bytes as `tarfile` wants them: at most `limit` in all, in small pieces, never backwards.

    So a compressed bomb ends early even inside a header, and a header that points back cannot be read for ever.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit, self._position = file, limit, 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last_read = self._file.read(size)
        self._position += len(self.last_read)
        if self._position > self._limit:
            raise _too_large(f"{self._limit} bytes", "REID_MAX_ARCHIVE_BYTES")
        return self.last_read

    def seek(self, offset: int) -> None:
        if offset < self._position:
            raise tarfile.ReadError("a header points backwards")
        while self._position < offset and self.read(min(_CHUNK, offset - self._position)):
            pass

    def tell(self) -> int:
        return self._position


def _write_all(entries: Iterator[_Entry], folder: Path, max_bytes: int, max_files: int, min_free_bytes: int) -> None:
    room, written = max_bytes, 0
    for number, entry in enumerate(entries, start=1):
        if number > max_files:
            raise _too_large(f"{max_files} entries", "REID_MAX_ARCHIVE_FILES")
        parts = _parts(entry)
        if any(is_debris(part) for part in parts):
            continue
        target = folder.joinpath(*parts)
        if entry.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
        else:
            room -= _write(entry, target, room, max_bytes, min_free_bytes)
            written += 1
    if not written:
        raise DatasetError("The archive holds no files.", hint="Pack the folder of images itself.")


def _parts(entry: _Entry) -> tuple[str, ...]:
    """The entry's name in parts, none of which leads out of the folder."""
    name = PurePosixPath(entry.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts and ":" in name.parts[0]):
        raise DatasetError(
            f"The archive holds '{printable(entry.name)}', which leads out of its folder.",
            hint="Pack the folder by relative names.",
        )
    if entry.kind not in ("file", "folder"):
        raise DatasetError(
            f"The archive holds '{printable(entry.name)}', a {entry.kind}.",
            hint="Pack plain files and folders only, e.g. with `tar --dereference`.",
        )
    return name.parts


def _write(entry: _Entry, target: Path, room: int, max_bytes: int, min_free_bytes: int) -> int:
    """The bytes written, at most `room`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with entry.open() as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > room:
                raise _too_large(f"{max_bytes} bytes", "REID_MAX_ARCHIVE_BYTES")
            if shutil.disk_usage(target.parent).free - len(chunk) < min_free_bytes:
                raise OSError(errno.ENOSPC, f"less than {min_free_bytes} bytes would stay free")
            file.write(chunk)
    return written


def _too_large(limit: str, setting: str) -> DatasetError:
    return DatasetError(
        f"The archive holds more than {limit}.",
        hint=f"Raise {setting}, or put the folder under a data root and register its path.",
    )


@contextmanager
def _as_dataset_error() -> Iterator[None]:
    """Turns what a damaged archive makes the readers raise into a DatasetError."""
    try:
        yield
    except _DAMAGE as error:
        raise _damaged(error) from error
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename is None:  # a zip that points before its own start
            raise _damaged(error) from error
        if error.errno not in _NAMING_FAULTS:
            raise
        name = printable(Path(str(error.filename)).name[:100])
        raise DatasetError(
            f"The archive holds '{name}' twice, as file and folder, or under too long a name: {error.strerror}.",
            hint="Give every file a name of its own.",
        ) from error


def _damaged(error: Exception) -> DatasetError:
    return DatasetError(
        f"The archive is damaged, or neither zip, tar nor tar.gz: {printable(str(error))}.",
        hint="Pack and send it again.",
    )


_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
_NAMING_FAULTS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
