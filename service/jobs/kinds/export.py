"""Exports: a model written for another runtime, compared with PyTorch on images of a data set."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.errors import Fault
from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Model
from service.errors import Problem
from service.jobs.body_schemas import ExportBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, embedding
from service.settings import Settings

COMPARED_IMAGES = 60
"""At most so many are compared."""


def resolve(session: Session, settings: Settings, body: ExportBody) -> Resolved:
    """The spec of the export asked for."""
    model = find(session, Model, body.model)
    if body.dataset is None:
        trained_on = [row["id"] for row in model.lineage.get("datasets", [])]
        ready = select(Dataset.id).where(Dataset.id.in_(trained_on), Dataset.state == "ready")
        datasets = list(session.scalars(ready.order_by(Dataset.id)))
    else:
        datasets = [find_ready(session, body.dataset).id]
    if session.scalar(select(DatasetImage.id).where(DatasetImage.dataset_id.in_(datasets)).limit(1)) is None:
        raise nothing_to_compare(_why_nothing(model, body))
    return Resolved("export", {"model": model.id, "format": body.format, "datasets": datasets}, tuple(datasets))


def _why_nothing(model: Model, body: ExportBody) -> str:
    if body.dataset is not None:
        return f"data set {body.dataset!r} has no images"
    if "imported" in model.lineage:
        return f"model {model.name!r} was imported, so no data set is known that it was trained on"
    return f"none of the data sets that {model.name!r} was trained on is left"


def nothing_to_compare(reason: str) -> Problem:
    """An export has no images to be compared on."""
    return Problem(
        "invalid-request",
        f"There is nothing to compare the file on: {reason}.",
        hint="Name as dataset any that is ready; a few images of people are enough.",
        errors=[Fault("/dataset", "nothing-to-compare", reason)],
    )


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Embedding the compared images by PyTorch, and again by the other runtime."""
    of_datasets = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets))
    images = min(COMPARED_IMAGES, session.scalar(of_datasets) or 0)
    first = embedding(session, job.spec["model"], images)
    return [first, replace(first, is_first=False)]


PLAN = Plan(resolve, workloads, device="cpu")
