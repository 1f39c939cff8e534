"""Deletion jobs: what is kept of a deleted gallery is removed."""

from __future__ import annotations

from service.galleries.deletion import finish_deletion
from worker.work import Outcome, Work


def run(work: Work) -> Outcome:
    """Removes the files and rows of a gallery that DELETE has hidden."""
    gallery = work.job.spec["gallery"]
    deleted = finish_deletion(work.database, work.settings, gallery, on_progress=work.progress("delete"))
    return Outcome({"gallery": gallery, "deleted": deleted})
