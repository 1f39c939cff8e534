"""The watch of a worker beside its jobs: it shows that it lives, and sweeps up after crashes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete

from service.clock import utc_now
from service.datasets.uploads import remove_lost_uploads
from service.db.answers import forget_old
from service.db.session import Database
from service.db.tables import Worker
from service.deletion import remove_pending
from service.galleries.removal import finish_erasures
from service.galleries.retention import expire, remove_leftovers, sweep_interrupted_work
from service.jobs.deletions import resume_deletions
from service.jobs.sweep import Send, sweep
from service.jobs.uploaded_queries import remove_lost_queries
from service.kept_searches import sweep_records
from service.models.importing import remove_lost_imports
from service.settings import Settings
from worker.growth import index_outgrown

logger = logging.getLogger(__name__)

_SECONDS = 2.0
_LEFTOVERS_SECONDS = 3600.0


def watch(
    settings: Settings,
    database: Database,
    name: str,
    queues: Sequence[str],
    send: Send,
    shutdown: threading.Event,
) -> None:
    """Until shutdown: every two seconds a heartbeat (row, file) and a sweep, at first and every hour one for leftovers.

    Any fault is outlasted: without its heartbeat a worker that works would count as dead. A wait that took far too
    long was a sleep of the whole machine, a closed laptop or a stalled host; no job is taken for lost because of it.
    """
    first, has_slept, leftovers_at = True, False, 0.0
    nap = timedelta(seconds=_SECONDS + settings.lease_seconds / 2)  # any shorter one leaves the leases valid
    while not shutdown.is_set():
        try:
            _show_life(settings, database, name, queues)
            sweep(database, send, max_attempts=settings.max_attempts, resend_all=first, has_slept=has_slept)
            first = False
            expire(database, settings, utc_now())
            sweep_removals(settings, database)
            resume_deletions(database, send)
            index_outgrown(database, send)
            if time.monotonic() >= leftovers_at:
                leftovers_at = time.monotonic() + _LEFTOVERS_SECONDS
                remove_leftovers(database, settings)
        except Exception as error:  # noqa: BLE001  see above
            logger.warning("heartbeat or sweep failed, trying again: %s", error)
        wait_began = utc_now()
        shutdown.wait(_SECONDS)
        has_slept = utc_now() - wait_began > nap
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.name == name))


def sweep_removals(settings: Settings, database: Database) -> None:
    """Removes whatever is to go: what deletions and erasures could not, what killed processes left, what is too old."""
    remove_pending(database, settings)
    finish_erasures(database, settings)
    sweep_interrupted_work(database, settings)
    remove_lost_uploads(database, settings)
    remove_lost_imports(settings)
    remove_lost_queries(database, settings)
    sweep_records(settings)
    forget_old(database, keep=timedelta(seconds=settings.idempotency_seconds))


def _show_life(settings: Settings, database: Database, name: str, queues: Sequence[str]) -> None:
    with database.write() as session:
        session.merge(Worker(name=name, queues=list(queues), heartbeat_at=utc_now()))
    if settings.heartbeat_file is not None:
        settings.heartbeat_file.touch()
