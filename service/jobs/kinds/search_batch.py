"""Batches of searches: many queries of one gallery, whose results become a file."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Gallery
from service.errors import invalid_request
from service.jobs.kinds.plan import Plan, Resolved, Workload, embedding
from service.jobs.search_batch_schemas import SearchBatchBody, SplitQueries
from service.jobs.searched import resolve_batch
from service.settings import Settings


def resolve(session: Session, settings: Settings, body: SearchBatchBody) -> Resolved:
    """The spec of the batch asked for."""
    queries, datasets = _resolve_queries(session, body)
    spec = resolve_batch(session, settings, body, body.gallery, queries)
    return Resolved("search_batch", spec, datasets)


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Embedding the images of the split; none where vectors are there already."""
    queries = job.spec["queries"]
    if "dataset" not in queries:
        return []
    of_split = (DatasetImage.dataset_id == queries["dataset"], DatasetImage.split == queries["split"])
    images = session.scalar(select(func.count()).where(*of_split)) or 0
    gallery = session.get_one(Gallery, job.spec["gallery"])
    return [embedding(session, gallery.model_id, images)]


def _resolve_queries(session: Session, body: SearchBatchBody) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The queries as the spec names them, and the data sets that they are read from."""
    if not isinstance(body.queries, SplitQueries):
        return {"gallery": find(session, Gallery, body.queries.gallery).id}, ()
    dataset: Dataset = find_ready(session, body.queries.dataset)
    of_split = (DatasetImage.dataset_id == dataset.id, DatasetImage.split == body.queries.split)
    if session.scalar(select(DatasetImage.id).where(*of_split).limit(1)) is None:
        message = f"data set {dataset.name!r} has no images in split {body.queries.split!r}"
        raise invalid_request("/queries/split", "empty", message, hint=f"GET /datasets/{dataset.id} shows its splits.")
    return {"dataset": dataset.id, "split": body.queries.split}, (dataset.id,)


PLAN = Plan(resolve, workloads)
