"""Removing the bytes of erased images: stored files, vectors, maps, copies in indexes, records of searches.

Their rows are gone by then (`withdrawal`), and `pending_erasures` says where the bytes lie until all are removed. Every
step may be done again and needs no room on the disk, so that whoever comes next finishes what a crash or a fault left.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

from reid_core.errors import CoreError, IndexCorrupt
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage, JsonObject, PendingErasure
from service.errors import Problem
from service.galleries.files import (
    delete_index_files,
    gallery_folder,
    generation_folder,
    generation_of,
    index_path,
    save_erased_index,
)
from service.galleries.image_files import image_folder
from service.galleries.images import count_rebuilt
from service.galleries.lifecycle import lock_gallery
from service.galleries.staging import forget_staged
from service.kept_searches import erase_records
from service.settings import Settings
from service.storage import delete_file, delete_tree

logger = logging.getLogger(__name__)

_ROWS_PER_STATEMENT = 5000


def remove_erased(database: Database, settings: Settings, gallery_id: str, *, wait: bool = True) -> None:
    """Removes all that is pending in the gallery; what cannot be removed now stays pending, and the log says why.

    Without `wait` the index is left to whoever is replacing it already.
    """
    try:
        _remove(database, settings, gallery_id, wait)
    except Problem:
        logger.info("gallery %s was deleted, with all that was to be erased from it", gallery_id)
    except BlockingIOError:
        logger.info("what was erased from gallery %s is being removed already", gallery_id)
    except (OSError, OperationalError, CoreError) as error:
        logger.warning("what was erased from gallery %s is not all removed, trying again: %s", gallery_id, error)


def finish_erasures(database: Database, settings: Settings) -> None:
    """Removes what is pending in all galleries but those where another is removing it."""
    with database.read() as session:
        galleries = session.scalars(select(PendingErasure.gallery_id).distinct()).all()
    for gallery_id in galleries:
        remove_erased(database, settings, gallery_id, wait=False)


def count_pending(session: Session, gallery_id: str, image_ids: set[str]) -> int:
    """Counts those of the gallery's erased images whose bytes are still to be removed."""
    pending = select(PendingErasure.id).where(PendingErasure.gallery_id == gallery_id)
    return len(image_ids.intersection(session.scalars(pending)))


def sweep_files(database: Database, settings: Settings, gallery_id: str) -> None:
    """Deletes earlier generations, and built indexes that are not in use: they may hold erased vectors.

    Whoever has just saved an index finds it gone when it is about to use it, and saves it again without them.
    """
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        for folder in gallery_folder(settings, gallery_id).glob("[0-9]*"):
            if int(folder.name) < gallery.generation:
                delete_tree(folder)
            else:
                delete_index_files(folder, but=gallery.index if int(folder.name) == gallery.generation else None)


def _remove(database: Database, settings: Settings, gallery_id: str, wait: bool) -> None:
    with database.read() as session:
        pending = session.scalars(select(PendingErasure).where(PendingErasure.gallery_id == gallery_id)).all()
    if not pending:
        return
    # Images first: where the disk is full they make room for the rest.
    _delete_images(settings, gallery_id, [one.file for one in pending if one.file is not None])
    erase_records(settings, {one.id for one in pending})
    with database.write() as session:
        zero_features(session, settings, lock_gallery(session, gallery_id))
    while not _clear_index(database, settings, gallery_id, wait):
        pass
    sweep_files(database, settings, gallery_id)
    database.scrub()
    with database.write() as session:
        for start in range(0, len(pending), _ROWS_PER_STATEMENT):
            done = [one.id for one in pending[start : start + _ROWS_PER_STATEMENT]]
            session.execute(delete(PendingErasure).where(PendingErasure.id.in_(done)))


def _delete_images(settings: Settings, gallery_id: str, names: Sequence[str]) -> None:
    folder = image_folder(settings, gallery_id)
    for name in names:
        delete_file(folder / name)
    forget_staged(settings, gallery_id, names)


def zero_features(session: Session, settings: Settings, gallery: Gallery) -> None:
    """Zeroes what is pending in the vectors and maps of the locked gallery, and what lies beyond those of its rows."""
    current, next_one = (generation_of(session, settings, gallery, ahead=ahead) for ahead in (0, 1))
    current.erase(_in_use(session, gallery), count=gallery.next_position)
    being_built = PendingErasure.generation == gallery.generation, _is_free(GalleryImage.rebuilt_position)
    next_one.erase(
        _pending_positions(session, gallery, PendingErasure.rebuilt_position, *being_built),
        count=count_rebuilt(session, gallery.id),
    )


def _in_use(session: Session, gallery: Gallery) -> list[int]:
    """The positions that are pending in the generation in use: erased in it, or while it was being built."""
    current = PendingErasure.generation == gallery.generation
    before = PendingErasure.generation == gallery.generation - 1, _is_free(GalleryImage.position)
    return [
        *_pending_positions(session, gallery, PendingErasure.position, current),
        *_pending_positions(session, gallery, PendingErasure.rebuilt_position, *before),
    ]


def _pending_positions(
    session: Session, gallery: Gallery, column: InstrumentedAttribute[Any], *which: ColumnElement[bool]
) -> list[int]:
    found = select(column).where(PendingErasure.gallery_id == gallery.id, column.is_not(None), *which)
    return list(session.scalars(found))


def _is_free(column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """No image has the position by now: a rebuild gives the last ones of the generation that it builds again."""
    return ~exists().where(
        GalleryImage.gallery_id == PendingErasure.gallery_id, column == PendingErasure.rebuilt_position
    )


def _clear_index(database: Database, settings: Settings, gallery_id: str, wait: bool) -> bool:
    """Puts an index without what is pending in the place of the one in use; False where another came in between.

    Not under the gallery's lock, since a large index takes long to write. Raises BlockingIOError where somebody is
    writing it and `wait` is false.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        before, positions = gallery.index, _indexed(session, gallery)
    if before is None or not positions:
        return True
    folder = generation_folder(settings, gallery_id, gallery.generation)
    with _turn(index_path(folder, before), wait):
        after = _without(folder, before, positions)
        with database.write() as session:
            gallery = lock_gallery(session, gallery_id)
            if gallery.index != before or (after is not None and not index_path(folder, after).exists()):
                return False
            gallery.index = after
    return True


def _indexed(session: Session, gallery: Gallery) -> list[int]:
    """The positions that are pending in the index in use."""
    covered = gallery.index["images"] if gallery.index is not None else 0
    return [position for position in _in_use(session, gallery) if position < covered]


@contextmanager
def _turn(path: Path, wait: bool) -> Iterator[None]:
    """Holds the index at `path` until the block ends, so that it is replaced once and not by several at a time."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:  # it is damaged, or has just been replaced
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _without(folder: Path, entry: JsonObject, positions: Sequence[int]) -> JsonObject | None:
    try:
        return save_erased_index(folder, entry, positions)
    except (OSError, IndexCorrupt) as error:
        # Erasing goes before quick searching.
        logger.warning("the index %s is given up, searches compare with every vector: %s", entry["file"], error)
        return None
