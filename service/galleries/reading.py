"""Reading the files of a gallery that a rebuild may replace, and delete, between its row and them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from reid_core.errors import IndexCorrupt
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery

Found = TypeVar("Found")


def read_current(database: Database, gallery_key: str, read: Callable[[Session, Gallery], Found]) -> Found:
    """Calls `read` with the gallery as a session sees it, anew where other files have come into use meanwhile.

    Raises the 404 problem, and what `read` raises of files that are in use still.
    """
    while True:
        with database.read() as session:
            gallery = find(session, Gallery, gallery_key)
            try:
                return read(session, gallery)
            except (IndexCorrupt, FileNotFoundError):
                if not _has_moved_on(database, gallery):
                    raise


def _has_moved_on(database: Database, seen: Gallery) -> bool:
    """True if other files are in use by now than those that `seen` names, which are deleted then."""
    with database.read() as session:
        gallery = find(session, Gallery, seen.id)
        return (gallery.generation, gallery.index) != (seen.generation, seen.index)
