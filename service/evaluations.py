"""What models reached on data sets, one by one and as a table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.tables import Dataset, Evaluation, Model


def evaluation_as_json(evaluation: Evaluation, prefix: str = "") -> dict[str, Any]:
    """The evaluation as clients see it: metrics, their protocol, and what was measured on what."""
    links = {
        "model": f"{prefix}/models/{evaluation.model_id}",
        "dataset": f"{prefix}/datasets/{evaluation.dataset_id}",
    }
    if evaluation.job_id:
        links["job"] = f"{prefix}/jobs/{evaluation.job_id}"
    return {
        "id": evaluation.id,
        "model": evaluation.model_id,
        "dataset": evaluation.dataset_id,
        "rerank": evaluation.rerank,
        "reranker": evaluation.reranker_id,
        "flip_average": evaluation.protocol.get("flip_average", False),
        **evaluation.metrics,
        "protocol": evaluation.protocol,
        "created_at": rfc3339(evaluation.created_at),
        "job": evaluation.job_id,
        "links": links,
    }


def evaluations_of(session: Session, model_id: str) -> list[Evaluation]:
    """The model's evaluations, newest first."""
    of_model = select(Evaluation).where(Evaluation.model_id == model_id)
    return list(session.scalars(of_model.order_by(Evaluation.id.desc())))


def read_matrix(session: Session, prefix: str = "") -> dict[str, Any]:
    """Models x data sets: `cells[model id][dataset id]` is the newest evaluation of that pair.

    Only models and data sets that were evaluated are named; the name of a data set that is gone is null.
    """
    newest = {
        (row.model_id, row.dataset_id): row for row in session.scalars(select(Evaluation).order_by(Evaluation.id))
    }
    models = session.scalars(select(Model).where(Model.id.in_({model for model, _ in newest})).order_by(Model.id))
    datasets = sorted({dataset for _, dataset in newest})
    names = {row.id: row.name for row in session.scalars(select(Dataset).where(Dataset.id.in_(datasets)))}
    cells: dict[str, dict[str, Any]] = {}
    for (model, dataset), row in newest.items():
        cells.setdefault(model, {})[dataset] = evaluation_as_json(row, prefix)
    return {
        "models": [{"id": model.id, "name": model.name, "method": model.method} for model in models],
        "datasets": [{"id": dataset, "name": names.get(dataset)} for dataset in datasets],
        "cells": cells,
    }
