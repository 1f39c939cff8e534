"""Unpacking uploads: ordinary archives come out whole, hostile and damaged ones leave nothing."""

import errno
import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reid_core.data.archive import extract
from reid_core.errors import DatasetError

CONTENT = {"set/train/anna/1.jpg": b"one" * 1000, "set/train/anna/2.jpg": b"two", "set/query/empty.jpg": b""}
Pack = Callable[[Path, dict[str, bytes]], Path]


def pack_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def pack_tar(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


PACKERS = pytest.mark.parametrize(
    ("pack", "name"), [(pack_zip, "a.zip"), (pack_tar, "a.tar"), (pack_tar, "a.tar.gz")], ids=["zip", "tar", "tar.gz"]
)


def unpack(archive: Path, *, max_bytes: int = 1 << 20, max_files: int = 100) -> Path:
    into = archive.parent / "out/into"
    extract(archive, into, max_bytes=max_bytes, max_files=max_files)
    return into


def refuse(archive: Path, message: str, **limits: int) -> DatasetError:
    """The error that unpacking ends in, after which nothing is left."""
    with pytest.raises(DatasetError, match=message) as raised:
        unpack(archive, **limits)
    assert raised.value.hint
    assert list((archive.parent / "out").iterdir()) == []
    return raised.value


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@PACKERS
def test_an_archive_comes_out_whole_and_without_debris(tmp_path: Path, pack: Pack, name: str) -> None:
    debris = {"__MACOSX/set/._1.jpg": b"x", "set/.DS_Store": b"x", "set/train/Thumbs.db": b"x"}
    into = unpack(pack(tmp_path / name, CONTENT | debris))
    assert files(into) == CONTENT
    assert list(into.parent.iterdir()) == [into]


@PACKERS
@pytest.mark.parametrize(
    "path", ["../evil.jpg", "set/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, pack: Pack, name: str, path: str) -> None:
    refuse(pack(tmp_path / name, CONTENT | {path: b"evil"}), "leads out of its folder")
    assert not list(tmp_path.rglob("evil*"))


@PACKERS
def test_sizes_are_counted_as_the_bytes_come_out(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, {"a.jpg": bytes(600_000), "b.jpg": bytes(600_000)})
    refuse(archive, "holds more than 1000000 bytes", max_bytes=1_000_000)
    assert len(files(unpack(archive, max_bytes=1_200_000))) == 2


@PACKERS
def test_too_many_entries_are_refused(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, {f"{number}.jpg": b"" for number in range(11)})
    refuse(archive, "more than 10 entries", max_files=10)
    assert len(files(unpack(archive, max_files=11))) == 11


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "a.zip", {"a.jpg": bytes(5_000_000)})
    claimed = archive.read_bytes().replace((5_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    archive.write_bytes(claimed)
    refuse(archive, "damaged|more than")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("set/link.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    refuse(tmp_path / "a.tar", "'set/link.jpg', a link or device")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("set/link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refuse(tmp_path / "a.zip", "a link or device")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = bytearray(pack_zip(tmp_path / "a.zip", {"a.jpg": b"x"}).read_bytes())
    archive[archive.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(archive)
    refuse(tmp_path / "a.zip", "encrypted")


def test_a_zip_method_without_bounds_on_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.jpg", bytes(1000))
    refuse(tmp_path / "a.zip", "method 12")


@PACKERS
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.7])
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, pack: Pack, name: str, keep: float) -> None:
    archive = pack(tmp_path / name, {f"{number}.jpg": os.urandom(5000) for number in range(4)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(keep * len(whole))])
    refuse(archive, "damaged")


@pytest.mark.parametrize(("pack", "name"), [(pack_zip, "a.zip"), (pack_tar, "a.tar.gz")])  # a plain tar has no checksum
def test_a_flipped_byte_is_noticed(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, {"a.jpg": os.urandom(5000)})
    damaged = bytearray(archive.read_bytes())
    damaged[2500] ^= 0xFF
    archive.write_bytes(damaged)
    refuse(archive, "damaged")


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "a.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    damaged = bytearray(archive.read_bytes())
    damaged[1024 + 150] ^= 0xFF  # the checksum of the second header
    archive.write_bytes(damaged)
    refuse(archive, "a header cannot be read")


def test_a_tar_that_ends_between_two_entries_is_refused(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "a.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    archive.write_bytes(archive.read_bytes()[:1024])
    refuse(archive, "a header cannot be read")


def test_a_bomb_inside_a_tar_header_ends_early(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 50_000_000
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf() + bytes(50_000_000))
    refuse(tmp_path / "a.tar.gz", "a header of 50000384 bytes")


def test_bytes_of_skipped_entries_count_too(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "a.tar.gz", {".hidden": bytes(20_000_000), "a.jpg": b"x"})
    refuse(archive, "holds more than", max_bytes=1_000)


def test_a_disk_that_gets_too_full_leaves_nothing(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "a.zip", CONTENT)
    with pytest.raises(OSError, match="would stay free") as raised:
        extract(archive, tmp_path / "out/into", max_bytes=1 << 20, max_files=100, min_free_bytes=1 << 62)
    assert raised.value.errno == errno.ENOSPC
    assert list((tmp_path / "out").iterdir()) == []


@PACKERS
def test_a_name_given_twice_is_refused(tmp_path: Path, pack: Pack, name: str) -> None:
    refuse(pack(tmp_path / name, {"a/b.jpg": b"1", "a//b.jpg": b"2"}), "'b.jpg' twice")
    (tmp_path / "out").rmdir()
    refuse(pack(tmp_path / name, {"a": b"1", "a/b.jpg": b"2"}), "as file and folder")


@PACKERS
def test_an_archive_without_files_is_refused(tmp_path: Path, pack: Pack, name: str) -> None:
    refuse(pack(tmp_path / name, {".DS_Store": b"x"}), "holds no files")


def test_a_zip_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "a.zip", {"a.jpg": b"x"})
    damaged = bytearray(archive.read_bytes())
    entry = damaged.index(b"PK\1\2")
    damaged[entry + 28], damaged[entry + 32] = 0, len("a.jpg")  # its name becomes its comment
    archive.write_bytes(damaged)
    refuse(archive, "damaged")


def test_a_zip_that_points_before_its_own_start_is_refused(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "a.zip", {"a.jpg": b"x"})
    damaged = bytearray(archive.read_bytes())
    damaged[damaged.index(b"PK\5\6") + 16] += 1
    archive.write_bytes(damaged)
    refuse(archive, "damaged")


@pytest.mark.parametrize("content", [b"", b"no", b"\xff\xd8\xff\xe0 an image", b"PK\3\4 nearly", b"\x1f\x8b\x08\x00"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refuse(tmp_path / "a.zip", "damaged, or neither zip, tar nor tar.gz")


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "a.zip", CONTENT)
    into = unpack(archive)
    with pytest.raises(DatasetError, match="'into' is there already"):
        unpack(archive)
    assert files(into) == CONTENT


def pack_plain_names(path: Path, names: list[str], encoding: str) -> Path:
    """A zip as Windows packs it: names in that encoding, and no flag that says so."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{number:03}{'x' * (len(name.encode(encoding)) - 3)}", b"content")
    raw = path.read_bytes()
    for number, name in enumerate(names):
        encoded = name.encode(encoding)
        raw = raw.replace(f"{number:03}{'x' * (len(encoded) - 3)}".encode(), encoded)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("encoding", "read_as", "names"),
    [
        ("cp437", "cp437", ["José/0.jpg", "Müller/1.jpg"]),
        ("cp850", "cp850", ["José/0.jpg", "Søren/1.jpg"]),
        ("cp1252", "cp1252", ["José/0.jpg", "Müller/1.jpg", "Zoë/2.jpg"]),
        ("cp1250", "cp1250", ["Łukasz/0.jpg", "Żaneta/1.jpg"]),
        ("cp932", "cp932", ["田中/0.jpg", "さくら/1.jpg"]),
        ("gbk", "gb2312", ["张三/0.jpg", "李四/1.jpg"]),
        ("big5", "big5", ["王小明/0.jpg", "陳大文/1.jpg"]),
        ("euc-kr", "euc-kr", ["김철수/0.jpg", "이영희/1.jpg", "박지성/2.jpg"]),
        ("cp866", "cp866", ["Иван/0.jpg", "Мария/1.jpg"]),
        ("cp1251", "cp1251", ["Иван/0.jpg", "Мария/1.jpg"]),
        ("utf-8", "utf-8", ["José/0.jpg", "田中/1.jpg"]),
    ],
)
def test_names_of_archives_that_do_not_say_their_encoding_are_found_out_and_noted(
    tmp_path: Path, encoding: str, read_as: str, names: list[str]
) -> None:
    folder = unpack(pack_plain_names(tmp_path / "a.zip", names, encoding))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")) == sorted(names)
    note = json.loads((folder / ".archive-names.json").read_text())
    assert (note["encoding"], note["count"], note["samples"][0]) == (read_as, len(names), names[0])


def test_an_encoding_that_is_said_is_taken_and_one_that_cannot_be_is_asked_for(tmp_path: Path) -> None:
    archive = pack_plain_names(tmp_path / "a.zip", ["金/0.jpg"], "euc-kr")
    error = refuse(archive, "not clear how the names in the archive are encoded")
    assert "`encoding`" in error.hint
    extract(archive, tmp_path / "said", max_bytes=1 << 20, max_files=9, encoding="euc-kr")
    assert (tmp_path / "said/金/0.jpg").is_file()
    with pytest.raises(DatasetError, match="are not ascii"):
        extract(archive, tmp_path / "wrong", max_bytes=1 << 20, max_files=9, encoding="ascii")


def test_names_that_say_their_encoding_leave_no_note(tmp_path: Path) -> None:
    folder = unpack(pack_zip(tmp_path / "a.zip", {"José/0.jpg": b"one"}))
    assert sorted(path.name for path in folder.iterdir()) == ["José"]


def test_a_tar_with_names_in_another_encoding_is_read_as_it_is_said(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp1252") as archive:
        member = tarfile.TarInfo("José/0.jpg")
        archive.addfile(member, io.BytesIO())
    assert [path.name for path in unpack(tmp_path / "a.tar").iterdir() if path.is_dir()] == ["José"]
