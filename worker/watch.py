"""What a worker does beside its jobs: it shows that it lives, and sweeps up after crashes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Worker
from service.galleries import expire, remove_leftovers
from service.jobs.sweep import Send, sweep
from service.settings import Settings

logger = logging.getLogger(__name__)

_SECONDS = 2.0


def watch(
    settings: Settings,
    database: Database,
    name: str,
    queues: Sequence[str],
    send: Send,
    shutdown: threading.Event,
) -> None:
    """Until shutdown: every two seconds a heartbeat row and a sweep. A fault of database or broker is outlasted."""
    first = True
    while not shutdown.is_set():
        try:
            _show_life(database, name, queues)
            sweep(database, send, max_attempts=settings.max_attempts, resend_all=first)
            expire(database, settings, utc_now())
            if first:
                remove_leftovers(database, settings)
            first = False
        except SQLAlchemyError as error:
            logger.warning("heartbeat or sweep failed, trying again: %s", error)
        shutdown.wait(_SECONDS)
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.name == name))


def _show_life(database: Database, name: str, queues: Sequence[str]) -> None:
    with database.write() as session:
        session.merge(Worker(name=name, queues=list(queues), heartbeat_at=utc_now()))
