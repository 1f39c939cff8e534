"""The graphs of training jobs with graph sampling, and the clusters of adaptations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Integer, column
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, require
from service.api.files import DRAWING_RESPONSES, answer_drawing
from service.api.pagination import cursor_after, start_of
from service.auth import Caller
from service.db.session import Database
from service.jobs import graphs, lifecycle
from service.jobs.clusters import read_clusters
from service.jobs.schemas import GraphAnswer, JobClustersAnswer
from service.settings import Settings

router = APIRouter(prefix="/jobs", tags=["jobs"])

Reader = Annotated[Caller, require("read")]
EpochQuery = Annotated[int | None, Query(ge=1, le=100_000, description="From 1; left out: the last one that has any.")]

_NUMBER = column("job_clusters", Integer)
"""The order of a job's clusters, which lie in a file: what cursors of their list name."""


@router.get("/{job_id}/graph")
def read_graph(
    job_id: str, database: DatabaseDep, settings: SettingsDep, _caller: Reader, epoch: EpochQuery = None
) -> GraphAnswer:
    """The nearest classes of every class, as graph sampling found them at the start of an epoch."""
    return graphs.read_graph(_folder(database, settings, job_id), epoch)


@router.get("/{job_id}/graph.png", response_class=Response, responses=DRAWING_RESPONSES)
async def read_graph_image(
    job_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Reader,
    epoch: EpochQuery = None,
    rows: Annotated[int, Query(ge=1, le=50, description="How many classes are shown.")] = 8,
) -> Response:
    """Draw the graph: in each row a class and beside it its nearest ones with their distances."""
    folder = await run_in_threadpool(_folder, database, settings, job_id)
    async with request.app.state.searches.turn():
        drawn = await run_in_threadpool(graphs.draw_graph_image, folder, epoch, request.app.state.decoder, rows=rows)
    return answer_drawing(request, drawn, "png")


@router.get("/{job_id}/clusters")
def read_job_clusters(
    job_id: str, database: DatabaseDep, settings: SettingsDep, page: PageDep, _caller: Reader, epoch: EpochQuery = None
) -> JobClustersAnswer:
    """The clusters that an epoch of an adaptation began with, in pages, and which it took for identities."""
    after = start_of(page, _NUMBER)
    return read_clusters(
        _folder(database, settings, job_id),
        epoch,
        start=0 if after is None else max(0, after + 1),
        limit=page.limit,
        cursor_of=lambda number: cursor_after(number, _NUMBER),
    )


def _folder(database: Database, settings: Settings, job_id: str) -> Path:
    with database.read() as session:
        return settings.jobs_dir / lifecycle.find_job(session, job_id).id
