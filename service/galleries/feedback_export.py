"""An archive of the images that feedback is about, as a data set to train on is uploaded."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.datasets.uploads import list_zip
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.feedback import feedback_of, group_by_person, images_of
from service.galleries.image_files import image_path
from service.galleries.lifecycle import lock_gallery
from service.settings import Settings
from service.storage import ensure_free_space

FORMAT = "manifest"
_COLUMNS = ("path", "identity", "camera", "split", "captured_at")

_PATHS = select(DatasetImage.path, DatasetImage.sha256)

_Files = list[tuple[str, GalleryImage, Path]]
"""Identity, image and file of each image."""


@dataclass(frozen=True, slots=True)
class Export:
    """The images that an archive holds, by their ids, and their gallery."""

    gallery_id: str
    image_ids: tuple[str, ...]


def write_archive(database: Database, settings: Settings, gallery_key: str, file: BinaryIO) -> Export:
    """Writes a zip of the files and a table of them, all to train on, to `file`.

    Persons are `person-1`, `person-2`, ... in it, those of `group_by_person`; files are called by their images' ids.

    Raises:
        Problem: 404 for an unknown gallery, 409 for feedback that contradicts itself or an image that is erased
            meanwhile, 422 without feedback or where an image's file is not kept, 507 without disk space.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        pairs = session.scalars(feedback_of(gallery.id)).all()
        if not pairs:
            raise Problem(
                "invalid-dataset",
                f"Gallery {gallery.name!r} has no feedback to make a data set of.",
                hint=f"Confirm or reject results first: POST /galleries/{gallery.id}/feedback.",
            )
        files = _find_files(session, settings, group_by_person(pairs))
    try:
        size = sum(path.stat().st_size for _, _, path in files)
        ensure_free_space(settings.uploads_dir, needed_bytes=size, min_free_bytes=settings.min_free_bytes)
        _write_zip(files, file)
    except FileNotFoundError as error:
        raise _changed(gallery) from error
    return Export(gallery.id, tuple(image.id for _, image, _ in files))


def lock_exported(session: Session, export: Export) -> None:
    """Locks the gallery in the transaction of `session`: until it ends, none of the exported images is erased.

    Raises 404 where the gallery has been deleted, 409 where one of the images has been erased.
    """
    gallery = lock_gallery(session, export.gallery_id)
    if len(images_of(session, export.image_ids)) < len(export.image_ids):
        raise _changed(gallery)


def left_in_exports(
    session: Session, settings: Settings, gallery: Gallery, images: Sequence[GalleryImage]
) -> dict[str, int]:
    """The data sets that the gallery's feedback was made into, and how many files of `images` lie in each."""
    image_ids, sha256s = {image.id for image in images}, {image.sha256 for image in images}
    counts: dict[str, int] = {}
    for dataset in session.scalars(select(Dataset).where(Dataset.uploaded)):
        if (dataset.declaration or {}).get("feedback_of") == gallery.id:
            rows = session.execute(_PATHS.where(DatasetImage.dataset_id == dataset.id))
            left = {path for path, sha256 in rows if sha256 in sha256s}
            if dataset.state != "ready":  # not all of its files have rows
                left |= {path for path in list_zip(settings, dataset.id) if PurePosixPath(path).stem in image_ids}
            if left:
                counts[dataset.id] = len(left)
    return counts


def _changed(gallery: Gallery) -> Problem:
    return Problem(
        "wrong-state",
        f"Images of gallery {gallery.name!r} were erased while feedback on them was exported.",
        hint="Export again.",
    )


def _write_zip(files: _Files, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for _, image, path in files:
            archive.write(path, _name(image, path))
        archive.writestr("manifest.csv", _table(files))
    file.flush()


def _find_files(session: Session, settings: Settings, people: Sequence[Sequence[str]]) -> _Files:
    files: _Files = []
    images = images_of(session, [image_id for image_ids in people for image_id in image_ids])
    for number, image_ids in enumerate(people, 1):
        for image in (images[image_id] for image_id in image_ids):
            try:
                files.append((f"person-{number}", image, image_path(session, settings, image)))
            except Problem as problem:
                hint = "Feedback of galleries that keep their images (keep_images) can be trained on."
                raise Problem("invalid-dataset", problem.detail, hint=hint) from problem
    return files


def _table(files: _Files) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(_COLUMNS)
    for identity, image, path in files:
        moment = rfc3339(image.captured_at) if image.captured_at else ""
        table.writerow([_name(image, path), identity, image.camera or "", "train", moment])
    return text.getvalue()


def _name(image: GalleryImage, path: Path) -> str:
    return f"images/{image.id}{path.suffix}"
