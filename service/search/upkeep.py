"""The upkeep of an API's loaded galleries: those in use are loaded ahead, deleted ones are let go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from service.search.snapshots import Snapshots

log = logging.getLogger(__name__)

_SECONDS = 5.0


class Upkeep:
    """A thread that looks after `snapshots`, from when it is made until `close`."""

    def __init__(self, snapshots: Snapshots, *, seconds: float = _SECONDS) -> None:
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
        _attempt(lambda: self._snapshots.preload(should_stop=self._over.is_set))
        while not self._over.wait(self._seconds):
            _attempt(self._snapshots.drop_deleted)


def _attempt(work: Callable[[], None]) -> None:
    try:
        work()
    except OperationalError as error:
        log.warning("loaded galleries cannot be compared with the database: %s", error)
