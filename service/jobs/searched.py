"""The specs of batches of searches, from whichever side they come: a job's body, or a form with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.db.lookup import find
from service.db.tables import Gallery, Job
from service.errors import Problem, invalid_request, not_found
from service.jobs.search_batch_schemas import SearchBatchOptions
from service.settings import Settings


def resolve_batch(
    session: Session, settings: Settings, options: SearchBatchOptions, gallery_key: str, queries: dict[str, Any]
) -> dict[str, Any]:
    """The spec of the batch; raises 404 for an unknown gallery, 409 for an empty one, 422 for a limit exceeded."""
    gallery = find(session, Gallery, gallery_key)
    for name in ("top_k", "candidates"):
        value: int = getattr(options, name)
        if value > settings.max_top_k:
            message = f"{name} is {value}, at most {settings.max_top_k} are allowed"
            raise invalid_request(f"/{name}", "too-large", message, hint="Ask for less, or raise REID_MAX_TOP_K.")
    if gallery.images == 0:
        raise Problem(
            "no-index",
            f"Gallery {gallery.name!r} holds no images yet.",
            hint=f"Add some: POST /galleries/{gallery.id}/images.",
        )
    told = options.model_dump(mode="json", include=set(SearchBatchOptions.model_fields))
    return {"gallery": gallery.id, "queries": queries, **told}


def result_file(settings: Settings, job: Job, name: str) -> tuple[Path, str]:
    """The path of one of the job's files and its SHA-256; raises 404 for any name that its result does not list."""
    files = (job.result or {}).get("files") if job.kind == "search_batch" else None
    if not files or name not in files:
        raise not_found("file of this job", name, known=list(files or ()))
    path = settings.jobs_dir / job.id / name
    if not path.is_file():
        raise Problem("not-found", f"File {name!r} of job {job.id!r} is gone from its folder.")
    return path, files[name]["sha256"]


def options_of(spec: dict[str, Any]) -> SearchBatchOptions:
    """The options that `resolve_batch` wrote into the spec."""
    return SearchBatchOptions.model_validate({name: spec[name] for name in SearchBatchOptions.model_fields})
