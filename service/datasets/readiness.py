"""The state of a data set as clients see it, for all who are about to use one."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from reid_core.errors import Fault
from service.db.lookup import find
from service.db.tables import Dataset, Job, JobDataset
from service.errors import Problem

State = Literal["pending", "ready", "invalid"]


def dataset_state(session: Session, dataset: Dataset) -> tuple[State, dict[str, Any] | None]:
    """State and error as clients see them: pending only while a job is there that will change it."""
    if dataset.state == "ready":
        return "ready", None
    if dataset.state == "invalid":
        return "invalid", dataset.error
    query = select(Job).join(JobDataset).where(JobDataset.dataset_id == dataset.id, Job.kind == "register")
    job = session.scalars(query.order_by(Job.id.desc()).limit(1)).first()
    if job is not None and job.finished_at is None:
        return "pending", None
    return "invalid", (job.error if job else None) or _given_up(dataset, job)


def in_state(state: State) -> ColumnElement[bool]:
    """The condition on rows that `standing` has in this state."""
    query = select(JobDataset.job_id).join(Job).where(JobDataset.dataset_id == Dataset.id, Job.kind == "register")
    is_coming = exists(query.where(Job.finished_at.is_(None)))
    if state == "pending":
        return and_(Dataset.state == "pending", is_coming)
    if state == "invalid":
        return or_(Dataset.state == "invalid", and_(Dataset.state == "pending", ~is_coming))
    return Dataset.state == state


def find_ready(session: Session, key: str) -> Dataset:
    """The data set with that id or name; raises 404, 409 while it is being read, 422 with why it is invalid."""
    dataset = find(session, Dataset, key)
    state, error = dataset_state(session, dataset)
    if state == "pending":
        raise Problem(
            "wrong-state", f"Data set {dataset.name!r} is still being read.", hint="Try again when its state is ready."
        )
    if error is not None:
        reason = f"Data set {dataset.name!r} is invalid: {error['detail']}"
        raise Problem(
            "invalid-dataset", reason, hint=error["hint"], errors=[Fault("/dataset", "invalid-dataset", reason)]
        )
    return dataset


def _given_up(dataset: Dataset, job: Job | None) -> dict[str, Any]:
    hint = f"POST /jobs/{job.id}/resume goes on with it; " if job else ""
    problem = Problem("invalid-dataset", "Its registration was cancelled.", hint=f"{hint}DELETE removes the data set.")
    return problem.as_json(instance=f"/datasets/{dataset.id}")
