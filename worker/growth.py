"""Galleries that have outgrown their index get another one by a job, while searches go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job
from service.galleries.growth import outgrown
from service.galleries.lifecycle import lock_gallery
from service.jobs import enqueue
from service.jobs.lifecycle import UNFINISHED
from service.jobs.sweep import Send

_PAUSE = timedelta(hours=1)
"""After a job that failed or was cancelled, so that the same does not happen again and again."""


def index_outgrown(database: Database, send: Send) -> None:
    """Starts an index job, which embeds nothing, for each gallery that needs another index and has no such job yet."""
    with database.read() as session:
        due = outgrown(session)
        due = sorted(set(due) - _busy(session)) if due else []
    for job_id in _enqueued(database, due):
        send(job_id, "index")


def _enqueued(database: Database, gallery_ids: Iterable[str]) -> list[str]:
    """The ids of the jobs that are waiting now; none for a gallery that another worker has seen to meanwhile."""
    jobs = []
    for gallery_id in gallery_ids:
        with database.write() as session:
            lock_gallery(session, gallery_id)
            if gallery_id not in _busy(session):
                jobs.append(enqueue(session, "index", {"gallery": gallery_id, "embed": False}).id)
    return jobs


def _busy(session: Session) -> set[str]:
    """The galleries that a job is indexing or is about to, or for which one has ended too badly to try again yet."""
    ended_badly = and_(Job.state.in_(("failed", "cancelled")), Job.finished_at > utc_now() - _PAUSE)
    specs = select(Job.spec).where(Job.kind == "index", or_(Job.state.in_(UNFINISHED), ended_badly))
    return {spec["gallery"] for spec in session.scalars(specs)}
