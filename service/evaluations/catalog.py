"""The rows of evaluations, by model and as a table of models and data sets."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Dataset, Evaluation, Model
from service.errors import not_found
from service.evaluations.quoted import quote
from service.evaluations.schemas import EvaluatedDataset, EvaluatedModel, EvaluationAnswer, MatrixAnswer


def evaluations_of(session: Session, model_id: str) -> list[Evaluation]:
    """The model's evaluations, newest first."""
    of_model = select(Evaluation).where(Evaluation.model_id == model_id)
    return list(session.scalars(of_model.order_by(Evaluation.id.desc())))


def find_evaluation(session: Session, evaluation_id: str) -> Evaluation:
    """The evaluation with that id. Raises the 404 problem."""
    row = session.get(Evaluation, evaluation_id)
    if row is None:
        raise not_found("evaluation", evaluation_id)
    return row


def read_matrix(session: Session, prefix: str = "") -> MatrixAnswer:
    """The newest evaluation of each pair of model and data set; `prefix` is put before links.

    Multi queries and open sets are left out: their numbers cannot be compared with the others.
    Only models and data sets that were evaluated are named; the name of a data set that is gone is null.
    """
    newest = {
        (row.model_id, row.dataset_id): row
        for row in session.scalars(select(Evaluation).order_by(Evaluation.id))
        if not row.protocol.get("multi_query") and not row.protocol.get("open_set")
    }
    models = session.scalars(select(Model).where(Model.id.in_({model for model, _ in newest})).order_by(Model.id))
    datasets = sorted({dataset for _, dataset in newest})
    known = {row.id: row for row in session.scalars(select(Dataset).where(Dataset.id.in_(datasets)))}
    cells: dict[str, dict[str, EvaluationAnswer]] = {}
    for (model, dataset), row in newest.items():
        cells.setdefault(model, {})[dataset] = EvaluationAnswer.of(row, prefix)
    return MatrixAnswer(
        models=[EvaluatedModel(id=model.id, name=model.name, method=model.method) for model in models],
        datasets=[EvaluatedDataset(id=key, name=known[key].name if key in known else None) for key in datasets],
        cells=cells,
        quoted=[row for key in datasets if key in known for row in quote(known[key])],
    )
