"""Writing down how a job gets on, always under its fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.db.tables import JobMetric

Points = Sequence[tuple[str, int, float]]
"""(curve, step, value)."""


def add_points(session: Session, job_id: str, points: Points) -> None:
    """Adds points to the job's curves."""
    if points:
        rows = [{"job_id": job_id, "name": name, "step": step, "value": value} for name, step, value in points]
        session.execute(JobMetric.__table__.insert(), rows)  # type: ignore[attr-defined]


def replace_curves(session: Session, job_id: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Makes the given curves the job's only ones, as when it goes on from a checkpoint."""
    session.execute(delete(JobMetric).where(JobMetric.job_id == job_id))
    add_points(session, job_id, [(name, step, value) for name, points in curves.items() for step, value in points])


def read_curves(session: Session, job_id: str) -> dict[str, list[tuple[int, float | None]]]:
    """Every curve of the job by its name, as points (step, value), steps rising."""
    curves: dict[str, list[tuple[int, float | None]]] = {}
    query = select(JobMetric).where(JobMetric.job_id == job_id).order_by(JobMetric.name, JobMetric.step)
    for point in session.scalars(query):
        curves.setdefault(point.name, []).append((point.step, point.value))
    return curves


def progress_as_json(
    fraction: float,
    phase: str,
    *,
    images_per_second: float | None = None,
    eta_seconds: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The progress object of api.md; pace and time left are None while they are not known."""
    pace = {
        "images_per_second": None if images_per_second is None else round(images_per_second, 1),
        "eta_seconds": None if eta_seconds is None else round(eta_seconds, 1),
    }
    return {"fraction": round(fraction, 6), "phase": phase, **more, **pace}
