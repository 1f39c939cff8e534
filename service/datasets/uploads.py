"""Uploaded archives on disk: where they lie, whether they are archives at all, unpacking and removing them."""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from reid_core.data.archive import extract
from reid_core.errors import DatasetError
from service.db.session import Database
from service.db.tables import Dataset
from service.errors import Problem
from service.settings import Settings
from service.storage import delete_file, delete_tree, ensure_free_space, is_full, try_lock

_OURS = re.compile(r"\.?(ds_[0-9a-z]{26})(\.part|-.*)?")


def archive_path(settings: Settings, dataset_id: str) -> Path:
    """The path of the archive until it is unpacked."""
    return settings.uploads_dir / f"{dataset_id}.part"


def folder_path(settings: Settings, dataset_id: str) -> Path:
    """The folder of an uploaded data set once it is unpacked."""
    return settings.uploads_dir / dataset_id


def check_archive(path: Path) -> None:
    """Raises 415 unless the file begins like a zip, tar or tar.gz; what is in it shows when it is unpacked."""
    if not (_is_zip(path) or _is_tar(path)):
        raise Problem(
            "unsupported-media",
            "The upload is neither a zip nor a tar nor a tar.gz, or it is damaged.",
            hint="Pack the folder of images, e.g. with `zip -r images.zip images`.",
        )


def unpack(settings: Settings, dataset_id: str, encoding: str = "") -> None:
    """The uploaded archive becomes a folder, whole or not at all; the archive is removed. Done once, it does nothing.

    `encoding` is that of names in it, "" to find it out.

    Raises:
        DatasetError: what is in the archive cannot be accepted; the archive is removed.
        Problem: `disk-full`; the archive stays, for another attempt.
    """
    archive, folder = archive_path(settings, dataset_id), folder_path(settings, dataset_id)
    if not folder.exists():
        for unfinished in settings.uploads_dir.glob(f".{dataset_id}-*"):
            delete_tree(unfinished)
        _extract(settings, archive, folder, encoding)
    delete_file(archive)


def paths_of(settings: Settings, dataset_id: str) -> list[Path]:
    """Whatever the upload of a data set may have left on disk."""
    unfinished = settings.uploads_dir.glob(f".{dataset_id}-*")
    return [archive_path(settings, dataset_id), folder_path(settings, dataset_id), *unfinished]


def list_zip(settings: Settings, dataset_id: str) -> list[str]:
    """The paths of the files in a zip that was uploaded, unpacked or not; none once it is gone."""
    try:
        with zipfile.ZipFile(archive_path(settings, dataset_id)) as archive:
            return archive.namelist()
    except FileNotFoundError:  # its folder was there before it went
        folder = folder_path(settings, dataset_id)
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def remove_lost_uploads(database: Database, settings: Settings) -> None:
    """Removes what uploads left that were killed before they became data sets."""
    found = [(ours[1], path) for path in settings.uploads_dir.glob("*") if (ours := _OURS.fullmatch(path.name))]
    if not found:
        return
    with database.read() as session:
        known = set(session.scalars(select(Dataset.id).where(Dataset.uploaded)))
    for dataset_id, path in found:
        if dataset_id not in known:
            _remove_lost(database, dataset_id, path)


def _remove_lost(database: Database, dataset_id: str, path: Path) -> None:
    """Removes `path` unless it is an archive that is arriving, which its request holds until the data set has a row."""
    if path.is_dir():
        delete_tree(path)
        return
    with suppress(FileNotFoundError), path.open("rb+") as file:  # an upload that is refused removes its own
        if try_lock(file):
            with database.read() as session:
                if session.get(Dataset, dataset_id) is None:
                    delete_file(path)


def _extract(settings: Settings, archive: Path, folder: Path, encoding: str) -> None:
    if not archive.exists():
        raise DatasetError("The uploaded archive is gone.", hint="Delete the data set and upload it again.")
    # Images are compressed already, so they take as much room as their archive.
    needed = archive.stat().st_size
    ensure_free_space(archive.parent, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)
    try:
        extract(
            archive,
            folder,
            max_bytes=settings.max_archive_bytes,
            max_files=settings.max_archive_files,
            min_free_bytes=settings.min_free_bytes,
            encoding=encoding,
        )
    except DatasetError:
        delete_file(archive)
        raise
    except OSError as error:
        if not is_full(error):
            raise
        reason = f"The archive could not be unpacked: {error.strerror}."
        raise Problem("disk-full", reason, hint="Free some space, or lower REID_MIN_FREE_BYTES.") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK" and zipfile.is_zipfile(path)


def _is_tar(path: Path) -> bool:
    """True if the first header is a tar's; `tarfile.open` would go on to read whatever that header claims."""
    with path.open("rb") as file:
        start = file.read(2)
    try:
        with gzip.open(path) if start == b"\x1f\x8b" else path.open("rb") as file:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape")
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        return False
    return True
