"""Deleting a gallery: nobody finds it any more at once, and all that is kept of it goes page by page.

The row stays until everything else is gone and says so with `deleted_at`, so that whoever comes next goes on where a
crash or a fault ended it. No transaction is long: searches and uploads elsewhere do not wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import delete, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Cluster, ErasedImage, Feedback, Gallery, GalleryImage, PendingErasure
from service.galleries.files import gallery_folder
from service.galleries.lifecycle import lock_gallery
from service.kept_searches import records_of
from service.settings import Settings
from service.storage import delete_tree

logger = logging.getLogger(__name__)

AT_ONCE = 2000
"""Images that are deleted before the request is answered; a job deletes more."""

_Rows = type[GalleryImage | ErasedImage | PendingErasure | Cluster | Feedback]
_TABLES: tuple[_Rows, ...] = (GalleryImage, ErasedImage, PendingErasure, Cluster, Feedback)

_PAGE_ROWS = 500
"""Rows of one transaction: with their indexes some 30 ms of SQLite's write lock."""


def mark_deleted(session: Session, key: str, *, key_id: str | None) -> Gallery:
    """Hides the gallery from everybody and sets its name free, in the transaction of `session`; raises 404."""
    gallery = lock_gallery(session, find(session, Gallery, key).id)
    audit.record(session, key_id=key_id, action="gallery.delete", target=gallery.id, images=gallery.images)
    gallery.deleted_at, gallery.name = utc_now(), gallery.id
    return gallery


def finish_deletion(
    database: Database,
    settings: Settings,
    gallery_id: str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Removes all that is kept of a gallery that is marked deleted; the number of its images' rows that were left.

    Safe to be run again after it ended anywhere, and by several at a time.

    Args:
        on_progress: gets (rows deleted, rows in all); what it raises ends the deletion for now.

    Raises:
        OSError, OperationalError: files or rows cannot be removed now.
    """
    for path in (gallery_folder(settings, gallery_id), *records_of(settings, gallery_id)):
        delete_tree(path)
    with database.read() as session:
        of_gallery = select(func.count()).where(GalleryImage.gallery_id == gallery_id)
        total = session.scalar(of_gallery) or 0
    done = 0
    for table in _TABLES:
        while deleted := _delete_page(database, table, gallery_id):
            done += deleted
            on_progress(min(done, total), total)
    database.scrub()
    with database.write() as session:
        session.execute(delete(Gallery).where(Gallery.id == gallery_id, Gallery.deleted_at.is_not(None)))
    return total


def try_to_finish(database: Database, settings: Settings, gallery_id: str) -> None:
    """Finishes the deletion now; where that cannot be, the log says why and the workers' sweep goes on trying."""
    try:
        finish_deletion(database, settings, gallery_id)
    except (OSError, OperationalError) as error:
        logger.warning("gallery %s is not all removed, trying again: %s", gallery_id, error)


def _delete_page(database: Database, table: _Rows, gallery_id: str) -> int:
    """Deletes a page of the table's rows of that gallery, and leaves others as long a time to write: rows deleted."""
    started = time.monotonic()
    with database.write() as session:
        page = select(table.id).where(table.gallery_id == gallery_id).limit(_PAGE_ROWS)
        deleted = session.execute(delete(table).where(table.id.in_(page)).execution_options(synchronize_session=False))
        count: int = deleted.rowcount  # type: ignore[attr-defined]
    if count == _PAGE_ROWS:
        time.sleep(time.monotonic() - started)
    return count
