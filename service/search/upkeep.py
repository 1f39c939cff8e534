"""The upkeep of an API's loaded galleries: those in use are loaded ahead, deleted ones are let go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from service.db.schema import current_version, latest_version
from service.db.session import Database
from service.search.snapshots import Snapshots

log = logging.getLogger(__name__)

_SECONDS = 5.0
_SCHEMA_SECONDS = 0.1


class Upkeep:
    """A thread that looks after `snapshots`, from when it is made until `close`."""

    def __init__(self, database: Database, snapshots: Snapshots, *, seconds: float = _SECONDS) -> None:
        self._database = database
        self._snapshots = snapshots
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="galleries", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, after the gallery that it is loading."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        self._await_schema()
        loaded = self._preload()
        while not self._over.wait(self._seconds):
            loaded = loaded or self._preload()
            _attempt(self._snapshots.drop_deleted)

    def _await_schema(self) -> None:
        """Returns once the database is at this version, to which it is brought while PyTorch is loaded."""
        while not self._over.is_set():
            with suppress(SQLAlchemyError), self._database.engine.connect() as connection:
                if current_version(connection) == latest_version():
                    return
            self._over.wait(_SCHEMA_SECONDS)

    def _preload(self) -> bool:
        return _attempt(lambda: self._snapshots.preload(should_stop=self._over.is_set))


def _attempt(work: Callable[[], None]) -> bool:
    """True where the database could do it: it may be away for a moment."""
    try:
        work()
    except SQLAlchemyError as error:
        log.warning("loaded galleries cannot be compared with the database: %s", error)
        return False
    return True
