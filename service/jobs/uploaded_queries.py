"""The files of queries that are uploaded for jobs, from their arrival until no job needs them any more."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Gallery, Job
from service.settings import Settings
from service.storage import delete_file, try_lock

KEPT = timedelta(days=7)
"""The time for which a job that failed or was cancelled can be resumed or retried with its file."""

_SUFFIX = ".queries"
_OURS = re.compile(r"(job_[0-9a-z]{26})\.queries")


def uploaded_path(settings: Settings, job_id: str) -> Path:
    """The place of the queries that were uploaded for that job."""
    return settings.uploads_dir / f"{job_id}{_SUFFIX}"


def remove_lost_queries(database: Database, settings: Settings) -> None:
    """Removes files of queries whose upload was killed before it became a job, and those that no job needs any more."""
    for path in settings.uploads_dir.glob(f"*{_SUFFIX}"):
        ours = _OURS.fullmatch(path.name)
        with suppress(FileNotFoundError), path.open("rb+") as file:
            if ours and try_lock(file):  # a request holds its own until the job has a row
                with database.read() as session:
                    if not _is_needed(session, ours[1]):
                        delete_file(path)


def _is_needed(session: Session, name: str) -> bool:
    """True while a job with that file may run: retries have ids of their own and name the file of the first."""
    asks = Job.spec["queries"]["file"].as_string() == name
    jobs = session.scalars(select(Job).where(Job.kind == "search_batch", asks)).all()
    if any(job.state == "succeeded" for job in jobs):
        return False
    since = utc_now() - KEPT
    alive = [job for job in jobs if job.finished_at is None or job.finished_at > since]
    return any(_has_gallery(session, job) for job in alive)


def _has_gallery(session: Session, job: Job) -> bool:
    gallery = session.get(Gallery, job.spec["gallery"])
    return gallery is not None and gallery.deleted_at is None
