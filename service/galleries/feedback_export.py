"""An archive of the images that feedback is about, as a data set to train on is uploaded."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.feedback import feedback_of, group_by_person, images_of
from service.galleries.image_files import image_path
from service.settings import Settings
from service.storage import ensure_free_space

FORMAT = "manifest"
_COLUMNS = ("path", "identity", "camera", "split", "captured_at")

_Files = list[tuple[str, GalleryImage, Path]]
"""Identity, image and file of each image."""


def write_archive(database: Database, settings: Settings, gallery_key: str, file: BinaryIO) -> str:
    """Writes a zip of the files and a table of them, all to train on, to `file`; the gallery's id.

    Persons are `person-1`, `person-2`, ... in it, those of `group_by_person`.

    Raises:
        Problem: 404 for an unknown gallery, 409 for feedback that contradicts itself, 422 without feedback or where an
            image's file is not kept, 507 without disk space.
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
    size = sum(path.stat().st_size for _, _, path in files)
    ensure_free_space(settings.uploads_dir, needed_bytes=size, min_free_bytes=settings.min_free_bytes)
    with zipfile.ZipFile(file, "w") as archive:
        for _, image, path in files:
            archive.write(path, _name(image, path))
        archive.writestr("manifest.csv", _table(files))
    file.flush()
    return gallery.id


def _find_files(session: Session, settings: Settings, people: Sequence[Sequence[str]]) -> _Files:
    files: _Files = []
    for number, image_ids in enumerate(people, 1):
        for image in images_of(session, image_ids).values():
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
