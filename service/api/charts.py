"""Charts over the API: of evaluations, of models' calibrations and of jobs' curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import DatabaseDep, SettingsDep, prefix_of, require
from service.api.files import CHART_RESPONSES, answer_drawing
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Evaluation, Model
from service.drawing.charts import Chart, ChartFormat
from service.evaluations.catalog import find_evaluation, read_matrix
from service.evaluations.charts import plot_cmc, plot_roc
from service.evaluations.heat_map import plot_matrix
from service.jobs.curves import plot_curves
from service.jobs.lifecycle import find_job
from service.models.reliability import plot_reliability
from service.settings import Settings

router = APIRouter(dependencies=[require("read")])

Rerank = Annotated[Literal["none", "qaconv", "k_reciprocal"], Query(description="The searches whose scores are meant.")]


@router.get("/evaluations/matrix.{format}", tags=["evaluations"], response_class=Response, responses=CHART_RESPONSES)
async def draw_evaluation_matrix(format: ChartFormat, request: Request, database: DatabaseDep) -> Response:
    """The table of models and data sets as a heat map of mAP, values and intervals in its cells."""
    prefix = prefix_of(request)
    return await _answer(request, database, format, lambda session: plot_matrix(read_matrix(session, prefix)))


@router.get(
    "/evaluations/{evaluation_id}/{chart}.{format}",
    tags=["evaluations"],
    response_class=Response,
    responses=CHART_RESPONSES,
)
async def draw_evaluation_chart(
    evaluation_id: str,
    chart: Literal["cmc", "roc", "reliability"],
    format: ChartFormat,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
) -> Response:
    """A chart of an evaluation. `reliability` is that of the calibration for the evaluation's way of re-ranking."""

    def plot(session: Session) -> Chart:
        evaluation = find_evaluation(session, evaluation_id)
        if chart == "cmc":
            return plot_cmc(session, settings, evaluation)
        if chart == "roc":
            return plot_roc(session, evaluation)
        return _plot_reliability(session, settings, evaluation)

    return await _answer(request, database, format, plot)


@router.get(
    "/models/{model_id}/reliability.{format}", tags=["models"], response_class=Response, responses=CHART_RESPONSES
)
async def draw_model_reliability(
    model_id: str,
    format: ChartFormat,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    rerank: Rerank = "none",
) -> Response:
    """The reliability diagram of the model's calibration: predicted probabilities beside the truth."""

    def plot(session: Session) -> Chart:
        return plot_reliability(settings, find(session, Model, model_id), rerank)

    return await _answer(request, database, format, plot)


@router.get("/jobs/{job_id}/curves.{format}", tags=["jobs"], response_class=Response, responses=CHART_RESPONSES)
async def draw_job_curves(job_id: str, format: ChartFormat, request: Request, database: DatabaseDep) -> Response:
    """The job's curves, each on axes of its own: losses, then accuracies and what else it measured."""
    return await _answer(request, database, format, lambda session: plot_curves(session, find_job(session, job_id)))


def _plot_reliability(session: Session, settings: Settings, evaluation: Evaluation) -> Chart:
    """The matcher's calibration is kept with the re-ranker, others with the model."""
    judge = evaluation.reranker_id if evaluation.rerank == "qaconv" else None
    return plot_reliability(settings, find(session, Model, judge or evaluation.model_id), evaluation.rerank)


async def _answer(
    request: Request, database: Database, format: ChartFormat, plot: Callable[[Session], Chart]
) -> Response:
    """Draws in a thread, among the searches that are answered at a time."""

    def read_and_draw() -> bytes:
        with database.read() as session:
            chart = plot(session)
        return chart.render(format)  # once the database is free again

    async with request.app.state.searches.turn():
        drawn = await run_in_threadpool(read_and_draw)
    return answer_drawing(request, drawn, format)
