"""What keeps galleries tidy with time: pictures past their retention are erased, leftovers of crashes removed."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.erasure import Receipt, erase, sweep_files
from service.pictures import pictures_folder
from service.settings import Settings
from service.storage import delete_file, delete_tree
from service.vectors import gallery_folder

_LOCK = ".lock"
_UPLOAD_SECONDS = 3600
"""A picture without a row that is younger may belong to a request that is being answered."""


def expire(database: Database, settings: Settings, now: datetime) -> int:
    """Erases the pictures that were added longer ago than their gallery's `retention_days`; how many those were."""
    with database.read() as session:
        galleries = session.scalars(select(Gallery).where(Gallery.retention_days.is_not(None))).all()
    erased = 0
    for gallery in galleries:
        too_old = GalleryImage.created_at < now - timedelta(days=gallery.retention_days or 0)
        receipt = erase(database, settings, gallery.id, too_old, _record_expiry)
        erased += receipt.images if receipt else 0
    return erased


def remove_leftovers(database: Database, settings: Settings) -> None:
    """Removes what crashes left of galleries: folders of deleted ones, unfinished generations, unknown files.

    A gallery that a job is indexing is left out.
    """
    for folder in settings.galleries_dir.glob("gal_*"):
        with database.read() as session:
            gallery = session.get(Gallery, folder.name)
        if gallery is None:
            delete_tree(folder)
            continue
        with index_lock(folder) as free:
            if free:
                remove_leftovers_of(database, settings, gallery.id)


def remove_leftovers_of(database: Database, settings: Settings, gallery_id: str) -> None:
    """The same for one gallery, by whoever holds its `index_lock`."""
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        of_gallery = select(GalleryImage).where(GalleryImage.gallery_id == gallery_id)
        rebuilding = session.scalar(of_gallery.where(GalleryImage.rebuilt_position.is_not(None)).limit(1)) is not None
        known = set(session.scalars(of_gallery.with_only_columns(GalleryImage.file)))
    for folder in gallery_folder(settings, gallery_id).glob("[0-9]*"):
        if int(folder.name) > gallery.generation + rebuilding:
            delete_tree(folder)
    sweep_files(database, settings, gallery_id)
    for path in pictures_folder(settings, gallery_id).glob("*"):
        if path.name not in known and _age_seconds(path) > _UPLOAD_SECONDS:
            delete_file(path)


@contextmanager
def index_lock(folder: Path) -> Iterator[bool]:
    """Whether nobody else is indexing the gallery in `folder`; if so, nobody else does until the block ends.

    The operating system gives the lock back when its holder dies.
    """
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


def _record_expiry(session: Session, receipt: Receipt) -> None:
    audit.record(session, key_id=None, action="gallery.expire", target=receipt.gallery_id, removed=receipt.removed)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
