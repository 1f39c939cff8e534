"""What clients see of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.tables import Job, JobEvent, JobMetric
from service.jobs.recording import progress_as_json


def job_as_json(job: Job, prefix: str = "") -> dict[str, Any]:
    """The job as api.md shows it; `prefix` is put before links (`/v1` where the request came that way)."""
    here = f"{prefix}/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events", "metrics": f"{here}/metrics", "logs": f"{here}/logs"}
    for thing in ("model", "dataset", "gallery"):
        if identifier := (job.result or {}).get(thing):
            links[thing] = f"{prefix}/{'galleries' if thing == 'gallery' else f'{thing}s'}/{identifier}"
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "spec": job.spec,
        "attempt": job.attempt,
        "progress": job.progress or progress_as_json(0.0, "waiting"),
        "metrics": job.metrics or {},
        "result": job.result,
        "error": job.error,
        "created_at": rfc3339(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "links": links,
    }


def event_as_json(event: JobEvent) -> dict[str, Any]:
    return {"id": event.id, "at": rfc3339(event.at), "event": event.kind, "data": event.data}


def read_events(session: Session, job_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
    """The job's events with an id above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id).limit(limit)
    return list(session.scalars(query))


def read_curves(session: Session, job_id: str) -> dict[str, list[list[float]]]:
    """Every curve of the job as `{name: [[step, value], ...]}`, steps rising."""
    curves: dict[str, list[list[float]]] = {}
    query = select(JobMetric).where(JobMetric.job_id == job_id).order_by(JobMetric.name, JobMetric.step)
    for point in session.scalars(query):
        curves.setdefault(point.name, []).append([point.step, point.value])
    return curves


def _time(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None
