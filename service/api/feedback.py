"""Feedback over the API: confirm or reject results, look through, make a data set of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.datasets import add_with_job
from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, accepted, prefix_of, require
from service.api.openapi import problems
from service.api.pagination import filter_equal, list_page
from service.auth import Caller
from service.datasets import catalog, uploads
from service.datasets.schemas import DatasetAnswer, UploadBody
from service.db.ids import new_id
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Feedback, Gallery
from service.galleries.feedback import add_feedback, delete_feedback, feedback_of
from service.galleries.feedback_export import FORMAT, write_archive
from service.galleries.feedback_schemas import ExportBody, FeedbackAnswer, FeedbackBody
from service.schemas import Listing, Reference
from service.settings import Settings
from service.storage import held_file

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]


@router.post(
    "/{gallery_id}/feedback",
    status_code=201,
    responses={
        200: {"description": "The pair was known; it is now what was said.", "model": FeedbackAnswer},
        **problems(404, 410),
    },
)
def give_feedback(
    gallery_id: str,
    body: FeedbackBody,
    request: Request,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
) -> FeedbackAnswer:
    """Confirm or reject a result: whether two images of the gallery show the same person."""
    pair, is_new = add_feedback(database, settings, gallery_id, body, caller)
    answer = FeedbackAnswer.of(pair, prefix_of(request))
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = answer.links.self
    return answer


@router.get("/{gallery_id}/feedback")
def list_feedback(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    same: bool | None = None,
    image: Annotated[Reference | None, Query(description="pairs with this image")] = None,
) -> Listing[FeedbackAnswer]:
    """The pairs of which somebody has said whether they show the same person, in the order in which they came."""
    prefix = prefix_of(request)
    with database.read() as session:
        pairs = feedback_of(find(session, Gallery, gallery_id).id, image)
        wanted = filter_equal(pairs, (Feedback.same, same))
        return list_page(session, wanted, Feedback.id, page, answer_of=lambda pair: FeedbackAnswer.of(pair, prefix))


@router.delete("/{gallery_id}/feedback/{feedback_id}", status_code=204)
def take_back(gallery_id: str, feedback_id: str, database: DatabaseDep, caller: Writer) -> None:
    """Take back what was said of a pair."""
    delete_feedback(database, gallery_id, feedback_id, key_id=caller.key_id)


@router.post("/{gallery_id}/feedback/export", status_code=202, responses=problems(409))
async def export_feedback(
    gallery_id: str,
    body: ExportBody,
    request: Request,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
) -> DatasetAnswer:
    """Make a data set of the images that feedback is about, to train on; a job reads it as it reads an upload."""
    state = request.app.state
    async with state.uploads.turn():
        answer = await run_in_threadpool(_export, gallery_id, body, request, database, settings, caller)
    await run_in_threadpool(state.send, answer.job, "register")
    return accepted(response, answer, answer.links.self)


def _export(
    gallery_id: str, body: ExportBody, request: Request, database: Database, settings: Settings, caller: Caller
) -> DatasetAnswer:
    """The new data set; on any error its archive is gone."""
    with database.read() as session:
        catalog.require_free_name(session, body.name)
    dataset_id = new_id("ds")
    # Held until the data set has a row, as an upload is.
    with held_file(uploads.archive_path(settings, dataset_id)) as file:
        export = write_archive(database, settings, gallery_id, file)
        place = catalog.Place(uploads.folder_path(settings, dataset_id))
        upload = UploadBody(name=body.name, format=FORMAT)
        return add_with_job(request, database, settings, caller, upload, place, dataset_id, export=export)
