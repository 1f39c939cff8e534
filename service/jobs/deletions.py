"""Deletions as jobs: of galleries too large to be deleted before a request is answered."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Gallery, Job
from service.jobs.lifecycle import enqueue
from service.jobs.sweep import Send

_REQUEST = timedelta(seconds=10)
"""Time that a request has to finish the deletion by itself."""

_PAUSE = timedelta(seconds=60)
"""Time between the end of one job and the next one for the same deletion."""


def enqueue_deletion(session: Session, gallery_id: str) -> Job:
    """The queued job that removes what is kept of a gallery that is marked deleted."""
    return enqueue(session, "delete", {"gallery": gallery_id})


def resume_deletions(database: Database, send: Send) -> None:
    """Makes a new job for each deleted gallery whose deletion has ended without an end: killed, failed, cancelled."""
    with database.read() as session:
        if not _given_up(session):
            return
    with database.write() as session:
        jobs = [enqueue_deletion(session, gallery_id).id for gallery_id in _given_up(session)]
    for job_id in jobs:
        send(job_id, "delete")


def _given_up(session: Session) -> list[str]:
    deleted = session.scalars(select(Gallery).where(Gallery.deleted_at < utc_now() - _REQUEST)).all()
    return [gallery.id for gallery in deleted if not _goes_on(session, gallery)]


def _goes_on(session: Session, gallery: Gallery) -> bool:
    job = session.get(Job, gallery.job_id) if gallery.job_id else None
    if job is None or job.kind != "delete":
        return False
    return job.finished_at is None or job.finished_at > utc_now() - _PAUSE
