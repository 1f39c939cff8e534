"""Index jobs: a gallery's images embedded anew and its index rebuilt, or that alone."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.db.lookup import find
from service.db.tables import Gallery
from service.jobs.body_schemas import IndexBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, embedding
from service.settings import Settings


def resolve(session: Session, settings: Settings, body: IndexBody) -> Resolved:
    """The spec of the index job asked for."""
    spec = {"gallery": find(session, Gallery, body.gallery).id}
    return Resolved("index", spec if body.embed else {**spec, "embed": False}, ())


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Embedding all images, and again by a re-ranker that is another model; none where only the index is built."""
    if not job.spec.get("embed", True):
        return []
    gallery = session.get_one(Gallery, job.spec["gallery"])
    first = embedding(session, gallery.model_id, gallery.images)
    if gallery.reranker_id in (None, gallery.model_id):
        return [first]
    return [first, embedding(session, gallery.reranker_id, gallery.images, passes=first.passes, is_first=False)]


PLAN = Plan(resolve, workloads)
