"""Evaluations: a model on the query and gallery splits of a data set."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.errors import Fault
from reid_core.methods import METHODS, matches_locally
from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import DatasetImage, Model
from service.errors import Problem, invalid_request
from service.jobs.body_schemas import EvaluateBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, embedding, passes_of
from service.settings import Settings

_SPLITS = ("query", "gallery")


def resolve(session: Session, settings: Settings, body: EvaluateBody) -> Resolved:
    """The spec of the evaluation asked for."""
    model, dataset = find(session, Model, body.model), find_ready(session, body.dataset)
    rerank = body.rerank or _usual_rerank(model)
    _refuse_unused(body, rerank)
    reranker = _resolve_reranker(session, body, model) if "qaconv" in rerank else None
    if not (dataset.report or {}).get("evaluable_queries"):
        raise Problem(
            "invalid-dataset",
            f"Data set {dataset.name!r} has no query with an image of the same identity on another camera.",
            hint=f"GET /datasets/{dataset.id}/report says why under findings.",
            errors=[Fault("/dataset", "nothing-to-evaluate", "no evaluable query")],
        )
    spec = {
        "model": model.id,
        "dataset": dataset.id,
        "rerank": rerank,
        "reranker": reranker.id if reranker else None,
        "candidates": body.candidates,
        "flip_average": body.flip_average,
        "multi_query": body.multi_query,
        "open_set": body.open_set and body.open_set.model_dump(),
    }
    return Resolved("evaluate", spec, (dataset.id,))


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Embedding the images of both splits, and again by another model that re-ranks."""
    spec, of_dataset = job.spec, DatasetImage.dataset_id.in_(job.datasets)
    images = session.scalar(select(func.count()).where(of_dataset, DatasetImage.split.in_(_SPLITS))) or 0
    passes = None if spec["flip_average"] is None else passes_of(spec["flip_average"])
    first = embedding(session, spec["model"], images, passes=passes)
    if spec["reranker"] in (None, spec["model"]):
        return [first]
    return [first, embedding(session, spec["reranker"], images, passes=first.passes, is_first=False)]


def _usual_rerank(model: Model) -> str:
    """A QAConv model is evaluated by its own matcher, as its paper does; other models by their embeddings."""
    return "qaconv" if matches_locally(model.method) else "none"


def _refuse_unused(body: EvaluateBody, rerank: str) -> None:
    if body.reranker is not None and "qaconv" not in rerank:
        raise invalid_request("/reranker", "not-used", "reranker is only used with rerank qaconv")
    if body.candidates is not None and rerank != "qaconv":
        raise invalid_request("/candidates", "not-used", "candidates is only used with rerank qaconv")
    if body.multi_query and body.open_set:
        message = "multi_query joins gallery images to queries, which people taken out of an open set's gallery lack"
        raise invalid_request("/multi_query", "not-together", message)
    if body.multi_query and rerank == "qaconv+k_reciprocal":
        message = "multi_query is used with rerank none, qaconv and k_reciprocal"
        raise invalid_request("/multi_query", "not-together", message)


def _resolve_reranker(session: Session, body: EvaluateBody, model: Model) -> Model:
    """The model whose matcher re-ranks. Raises 404 or 422."""
    reranker = model if body.reranker is None else find(session, Model, body.reranker)
    if not matches_locally(reranker.method):
        able = " or ".join(filter(matches_locally, METHODS))
        message = f"model {reranker.name!r} is of method {reranker.method!r}, which matches no local features"
        raise invalid_request(
            "/rerank" if body.reranker is None else "/reranker",
            "cannot-rerank",
            message,
            hint=f"Name as reranker a model that was trained by {able}, or use rerank k_reciprocal.",
        )
    return reranker


PLAN = Plan(resolve, workloads)
