"""Files whose rows were deleted: named in the transaction that deletes those, removed after it, at once or by a sweep.

So a deletion is all or nothing: it cannot be committed and leave its files for ever, nor lose files and keep its rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.db.session import Database
from service.db.tables import PendingRemoval
from service.settings import Settings
from service.storage import delete_file, delete_tree

logger = logging.getLogger(__name__)


def remove_later(session: Session, settings: Settings, paths: Iterable[Path]) -> None:
    """Names files and folders of the home that nothing will refer to once the transaction of `session` is committed."""
    for path in paths:
        session.merge(PendingRemoval(path=path.relative_to(settings.home).as_posix()))


def remove_pending(database: Database, settings: Settings) -> None:
    """Removes what was named and has been committed. What cannot be removed now stays named, for the next time."""
    with database.read() as session:
        paths = session.scalars(select(PendingRemoval.path)).all()
    if not paths:
        return
    try:
        for path in paths:
            _remove(settings.home / path)
        database.scrub()
        with database.write() as session:
            session.execute(delete(PendingRemoval).where(PendingRemoval.path.in_(paths)))
    except (OSError, OperationalError) as error:
        logger.warning("files of what was deleted are not all removed, trying again: %s", error)


def _remove(path: Path) -> None:
    (delete_tree if path.is_dir() or path.is_symlink() else delete_file)(path)
