"""Upkeep of galleries: images past their retention are erased, leftovers of crashes removed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import audit
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.erasure import Receipt, erase
from service.galleries.files import gallery_folder
from service.galleries.image_files import image_folder
from service.galleries.lifecycle import is_there, lock_gallery
from service.galleries.removal import sweep_files, zero_features
from service.galleries.staging import indexing_folder, indexing_folders, staging_folders
from service.settings import Settings
from service.storage import claim, delete_file, delete_tree


def expire(database: Database, settings: Settings, now: datetime) -> int:
    """Erases the images that were added longer ago than their gallery's `retention_days`; how many those were."""
    with database.read() as session:
        expiring = select(Gallery).where(Gallery.retention_days.is_not(None), Gallery.deleted_at.is_(None))
        galleries = session.scalars(expiring).all()
    erased = 0
    for gallery in galleries:
        too_old = GalleryImage.created_at < now - timedelta(days=gallery.retention_days or 0)
        receipt = erase(database, settings, gallery.id, too_old, _record_expiry)
        erased += receipt.images if receipt else 0
    return erased


def sweep_interrupted_work(database: Database, settings: Settings) -> None:
    """Removes what uploads and index jobs left that were killed since the last time."""
    for gallery_id, folder in staging_folders(settings):
        clear_staging(database, settings, gallery_id, folder)
    for gallery_id, _ in indexing_folders(settings):
        clear_indexing(database, settings, gallery_id)


def clear_staging(database: Database, settings: Settings, gallery_id: str, folder: Path) -> None:
    """Removes an upload's staging folder, and all that the upload did without its rows; nothing while it goes on."""
    with claim(folder) as free:
        if free:
            _undo(database, settings, gallery_id, {path.name for path in folder.iterdir()})


def clear_indexing(database: Database, settings: Settings, gallery_id: str) -> None:
    """Removes what an index job left that is over; nothing while one is running."""
    with claim(indexing_folder(settings, gallery_id)) as free:
        if free:
            remove_leftovers_of(database, settings, gallery_id)


def remove_leftovers(database: Database, settings: Settings) -> None:
    """Looks through all galleries for what belongs to no row, as after a database was restored from a backup.

    A gallery that a job is indexing is left out.
    """
    for folder in settings.galleries_dir.glob("gal_*"):
        clear_indexing(database, settings, folder.name)


def remove_leftovers_of(database: Database, settings: Settings, gallery_id: str) -> None:
    """Removes the folder of a deleted gallery, or of another unfinished generations, unknown indexes and images.

    For whoever has claimed its `indexing_folder`.
    """
    with database.read() as session:
        if not is_there(session, gallery_id):
            delete_tree(gallery_folder(settings, gallery_id))
            return
    _remove_unknown_images(database, settings, gallery_id)
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        rebuilt = select(GalleryImage.id).where(
            GalleryImage.gallery_id == gallery_id, GalleryImage.rebuilt_position.is_not(None)
        )
        rebuilding = session.scalar(rebuilt.limit(1)) is not None
        for folder in gallery_folder(settings, gallery_id).glob("[0-9]*"):
            if int(folder.name) > gallery.generation + rebuilding:
                delete_tree(folder)
        zero_features(session, settings, gallery)
    sweep_files(database, settings, gallery_id)


def _undo(database: Database, settings: Settings, gallery_id: str, names: set[str]) -> None:
    """Removes what came into the gallery without a row: images of these names, features beyond those of its rows."""
    with database.write() as session:
        if not is_there(session, gallery_id):
            return
        gallery = lock_gallery(session, gallery_id)
        known = select(GalleryImage.file).where(GalleryImage.gallery_id == gallery_id, GalleryImage.file.in_(names))
        for name in names - set(session.scalars(known)):
            delete_file(image_folder(settings, gallery_id) / name)
        zero_features(session, settings, gallery)


def _remove_unknown_images(database: Database, settings: Settings, gallery_id: str) -> None:
    folder = image_folder(settings, gallery_id)
    names = {path.name for path in folder.glob("*")}
    of_gallery = select(GalleryImage.file).where(GalleryImage.gallery_id == gallery_id)
    with database.read() as session:
        unknown = names - set(session.scalars(of_gallery)) if names else set()
    if unknown:
        # Once more under the lock: an upload puts them there before its rows are committed.
        with database.write() as session:
            lock_gallery(session, gallery_id)
            for name in unknown - set(session.scalars(of_gallery.where(GalleryImage.file.in_(unknown)))):
                delete_file(folder / name)


def _record_expiry(session: Session, receipt: Receipt) -> None:
    audit.record(session, key_id=None, action="gallery.expire", target=receipt.gallery_id, removed=receipt.removed)
