"""The files of queries that are uploaded for jobs, from their arrival until the job has succeeded."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from service.db.session import Database
from service.db.tables import Job
from service.settings import Settings
from service.storage import delete_file, try_lock

_SUFFIX = ".queries"
_OURS = re.compile(r"(job_[0-9a-z]{26})\.queries")


def uploaded_path(settings: Settings, job_id: str) -> Path:
    """The place of the queries that were uploaded for that job, until it has succeeded."""
    return settings.uploads_dir / f"{job_id}{_SUFFIX}"


def remove_lost_queries(database: Database, settings: Settings) -> None:
    """Removes files of queries whose upload was killed before it became a job, or whose job has succeeded."""
    for path in settings.uploads_dir.glob(f"*{_SUFFIX}"):
        ours = _OURS.fullmatch(path.name)
        with suppress(FileNotFoundError), path.open("rb+") as file:
            if ours and try_lock(file):  # a request holds its own until the job has a row
                with database.read() as session:
                    job = session.get(Job, ours[1])
                    if job is None or job.state == "succeeded":
                        delete_file(path)
