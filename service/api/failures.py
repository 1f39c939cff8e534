"""Pictures of an evaluation's failures over the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import DatabaseDep, SettingsDep, require
from service.api.files import DRAWING_RESPONSES, answer_drawing
from service.api.openapi import problems
from service.datasets.files import dataset_folder
from service.db.tables import Dataset, Evaluation
from service.decoding import Decoder
from service.drawing.sheets import open_tile
from service.evaluations.catalog import find_evaluation
from service.evaluations.charts import Subject
from service.evaluations.failure_sheets import (
    OpenImage,
    draw_label_suspects,
    draw_worst_queries,
    plot_confused_cameras,
    plot_hardest_identities,
)
from service.evaluations.failures import find_confused_cameras, find_failures
from service.settings import Settings
from service.storage import resolve_inside

router = APIRouter(prefix="/evaluations", tags=["evaluations"], dependencies=[require("read")])

View = Literal["worst_queries", "hardest_identities", "confused_cameras", "label_suspects"]


@router.get(
    "/{evaluation_id}/failures/{view}.png",
    response_class=Response,
    responses=DRAWING_RESPONSES | problems(409),
)
async def draw_evaluation_failures(
    evaluation_id: str,
    view: View,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    limit: Annotated[int, Query(ge=1, le=50, description="Most rows; of cameras all pairs are drawn.")] = 10,
) -> Response:
    """A list of the evaluation's failures as a picture: strips of images, bars of people, a heat map of cameras."""
    decoder: Decoder = request.app.state.decoder

    def draw() -> bytes:
        with database.read() as session:
            evaluation = find_evaluation(session, evaluation_id)
            draw_now = _prepare(session, settings, evaluation, view, limit, decoder)
        return draw_now()  # images are read once the database is free again

    async with request.app.state.searches.turn():
        drawn = await run_in_threadpool(draw)
    return answer_drawing(request, drawn, "png")


def _prepare(
    session: Session, settings: Settings, evaluation: Evaluation, view: View, limit: int, decoder: Decoder
) -> Callable[[], bytes]:
    """Reads what is to be drawn; the answer draws it."""
    subject = Subject.of(session, evaluation)
    if view == "confused_cameras":
        pairs = find_confused_cameras(session, settings, evaluation)
        return lambda: plot_confused_cameras(subject, pairs).render("png")
    failures = find_failures(session, settings, evaluation, limit=limit)
    open_image = _opener(session.get_one(Dataset, evaluation.dataset_id), settings, decoder)
    match view:
        case "hardest_identities":
            return lambda: plot_hardest_identities(subject, failures.hardest_identities).render("png")
        case "worst_queries":
            return lambda: draw_worst_queries(subject, failures.worst_queries, open_image)
        case "label_suspects":
            return lambda: draw_label_suspects(subject, failures.label_suspects, open_image)


def _opener(dataset: Dataset, settings: Settings, decoder: Decoder) -> OpenImage:
    folder = dataset_folder(settings, dataset)
    return lambda image: open_tile(decoder, resolve_inside(folder, image.path))
