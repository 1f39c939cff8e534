"""Evaluations over the API, one by one and as a table."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, prefix_of, require
from service.api.openapi import problems
from service.api.pagination import MAX_LIMIT, list_page
from service.db.lookup import Named, find
from service.db.tables import Dataset, Evaluation, Model
from service.errors import Problem, invalid_request
from service.evaluations.catalog import find_evaluation, read_matrix
from service.evaluations.comparison import compare_evaluations
from service.evaluations.comparison_schemas import ComparisonAnswer
from service.evaluations.failures import find_failures
from service.evaluations.failures_schemas import FailuresAnswer
from service.evaluations.matrix import as_markdown
from service.evaluations.schemas import EvaluationAnswer, MatrixAnswer
from service.schemas import Listing

router = APIRouter(prefix="/evaluations", tags=["evaluations"], dependencies=[require("read")])

_MARKDOWN = "text/markdown"

Key = Annotated[str | None, Query(max_length=200)]
EvaluationId = Annotated[str, Query(max_length=200, pattern=r"^[^\x00]+$", description="The id of an evaluation.")]


@router.get("")
def list_evaluations(
    request: Request, database: DatabaseDep, page: PageDep, model: Key = None, dataset: Key = None
) -> Listing[EvaluationAnswer]:
    """Evaluations, newest first; `model` and `dataset`, by id or name, narrow them down."""
    wanted, prefix = select(Evaluation), prefix_of(request)
    with database.read() as session:
        if model is not None:
            wanted = wanted.where(Evaluation.model_id == _filter(session, Model, model, "model"))
        if dataset is not None:
            wanted = wanted.where(Evaluation.dataset_id == _filter(session, Dataset, dataset, "dataset"))
        return list_page(
            session,
            wanted,
            Evaluation.id,
            page,
            answer_of=lambda row: EvaluationAnswer.of(row, prefix),
            newest_first=True,
        )


@router.get(
    "/matrix", response_model=MatrixAnswer, responses={200: {"content": {_MARKDOWN: {"schema": {"type": "string"}}}}}
)
def read_evaluation_matrix(
    request: Request,
    database: DatabaseDep,
    format: Annotated[
        Literal["json", "markdown"] | None, Query(description="Left out: as `Accept` says, which is JSON if nothing.")
    ] = None,
    accept: Annotated[str, Header()] = "",
) -> MatrixAnswer | Response:
    """Models x data sets, the newest evaluation of each pair, by single queries of a closed set."""
    with database.read() as session:
        matrix = read_matrix(session, prefix_of(request))
    if format == "markdown" or (format is None and _MARKDOWN in accept):
        return Response(as_markdown(matrix), media_type=f"{_MARKDOWN}; charset=utf-8")
    return matrix


@router.get("/compare", responses=problems(409))
def compare_two_evaluations(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    a: EvaluationId,
    b: EvaluationId,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT, description="Most queries in `changed`.")] = 20,
) -> ComparisonAnswer:
    """Evaluation `b` beside `a`: is the difference more than chance? Those that did not ask the same are refused."""
    with database.read() as session:
        first, second = _known(session, a, "a"), _known(session, b, "b")
        return compare_evaluations(session, settings, first, second, limit=limit, prefix=prefix_of(request))


@router.get("/{evaluation_id}/failures", responses=problems(409))
def read_evaluation_failures(
    evaluation_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT, description="Most entries in each list.")] = 20,
) -> FailuresAnswer:
    """The failures of an evaluation: worst queries and their first results, hardest people, cameras, label suspects."""
    with database.read() as session:
        evaluation = find_evaluation(session, evaluation_id)
        return find_failures(session, settings, evaluation, limit=limit, prefix=prefix_of(request))


@router.get("/{evaluation_id}")
def read_evaluation(evaluation_id: str, request: Request, database: DatabaseDep) -> EvaluationAnswer:
    """One evaluation with all that it measured."""
    with database.read() as session:
        return EvaluationAnswer.of(find_evaluation(session, evaluation_id), prefix_of(request), whole=True)


def _known(session: Session, evaluation_id: str, name: str) -> Evaluation:
    """The evaluation with that id. Raises 422 for an unknown one."""
    try:
        return find_evaluation(session, evaluation_id)
    except Problem as problem:
        raise invalid_request(f"/query/{name}", "unknown", problem.detail) from problem


def _filter(session: Session, table: type[Named], key: str, name: str) -> str:
    """The id that `key` stands for; a data set that is gone is still known by its id. Raises 422 for an unknown one."""
    try:
        return find(session, table, key).id
    except Problem as problem:
        if session.scalar(select(Evaluation.id).where(Evaluation.dataset_id == key).limit(1)) is not None:
            return key
        raise invalid_request(f"/query/{name}", "unknown", problem.detail) from problem
