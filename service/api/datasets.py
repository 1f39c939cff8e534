"""Data sets over the API: register a folder or upload one, look at it, delete it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.api.archive_form import ARCHIVE, receive_archive
from service.api.contents import check, is_json, read_json
from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, accepted, prefix_of, require
from service.api.files import IMAGE_RESPONSES
from service.api.openapi import problems
from service.api.pagination import filter_equal, list_page
from service.api.thumbnails import Width, answer_image
from service.auth import Caller
from service.datasets import catalog, uploads
from service.datasets.files import dataset_image_path
from service.datasets.readiness import State, dataset_state, in_state
from service.datasets.schemas import (
    DatasetAnswer,
    DatasetImageAnswer,
    FolderBody,
    MoveBody,
    ReportAnswer,
    UploadBody,
)
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage
from service.errors import Problem, not_found
from service.galleries.feedback_export import Export, lock_exported
from service.jobs import enqueue
from service.schemas import LabelFilter, Listing
from service.settings import Settings
from service.storage import ensure_free_space, held_file

router = APIRouter(prefix="/datasets", tags=["datasets"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]
Split = Literal["train", "query", "gallery"]

_FORM_SCHEMA = UploadBody.model_json_schema()
_FORM_SCHEMA["properties"][ARCHIVE] = {"type": "string", "format": "binary", "description": "a zip, tar or tar.gz"}
_FORM_SCHEMA["required"] += [ARCHIVE]
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": FolderBody.model_json_schema()},
        "multipart/form-data": {"schema": _FORM_SCHEMA},
    },
}


@router.post("", status_code=202, openapi_extra={"requestBody": _BODY})
async def create_dataset(
    request: Request, response: Response, database: DatabaseDep, settings: SettingsDep, caller: Writer
) -> DatasetAnswer:
    """Register a folder where it lies (JSON), or upload one as an archive (form). A job then reads it."""
    if is_json(request):
        body = check(FolderBody, await read_json(request))
        dataset = await run_in_threadpool(_register_folder, request, database, settings, caller, body)
    else:
        dataset = await _receive_upload(request, database, settings, caller)
    await run_in_threadpool(request.app.state.send, dataset.job, "register")
    return accepted(response, dataset, dataset.links.self)


@router.get("")
def list_datasets(
    request: Request, database: DatabaseDep, page: PageDep, _caller: Reader, state: State | None = None
) -> Listing[DatasetAnswer]:
    """Data sets, newest first."""
    query = select(Dataset)
    if state:
        query = query.where(in_state(state))
    with database.read() as session:
        return list_page(
            session,
            query,
            Dataset.id,
            page,
            answer_of=lambda dataset: DatasetAnswer.of(session, dataset, prefix_of(request)),
            newest_first=True,
        )


@router.get("/{dataset_id}")
def read_dataset(dataset_id: str, request: Request, database: DatabaseDep, _caller: Reader) -> DatasetAnswer:
    """One data set by id or name: state, counts per split, and what was found in short."""
    with database.read() as session:
        return DatasetAnswer.of(session, find(session, Dataset, dataset_id), prefix_of(request))


@router.delete("/{dataset_id}", status_code=204, responses=problems(409))
def delete_dataset(dataset_id: str, database: DatabaseDep, settings: SettingsDep, caller: Writer) -> None:
    """Forget a data set. An uploaded one is removed from disk, a folder read in place is left as it is."""
    catalog.delete_dataset(database, settings, dataset_id, key_id=caller.key_id)


@router.patch("/{dataset_id}", responses=problems(409))
def move_dataset(
    dataset_id: str, body: MoveBody, request: Request, database: DatabaseDep, settings: SettingsDep, caller: Writer
) -> DatasetAnswer:
    """Say where the same files lie now. All of them are compared with what was registered first."""
    moved = catalog.move_dataset(database, settings, dataset_id, body.path, key_id=caller.key_id)
    with database.read() as session:
        return DatasetAnswer.of(session, find(session, Dataset, moved), prefix_of(request))


@router.post("/{dataset_id}/rescan", status_code=202)
def rescan_dataset(
    dataset_id: str, request: Request, response: Response, database: DatabaseDep, caller: Writer
) -> DatasetAnswer:
    """Read the files again under the same name and id. Images that are still there keep their ids."""
    with database.write() as session:
        dataset = catalog.rescan_dataset(session, dataset_id)
        _enqueue_reading(session, dataset)
        audit.record(session, key_id=caller.key_id, action="dataset.rescan", target=dataset.id)
        session.flush()
        answer = DatasetAnswer.of(session, dataset, prefix_of(request))
    request.app.state.send(answer.job, "register")
    return accepted(response, answer, answer.links.self)


@router.get("/{dataset_id}/report", responses=problems(409))
def read_report(dataset_id: str, database: DatabaseDep, _caller: Reader) -> ReportAnswer:
    """Show the report on a data set: counts, and every finding with what follows from it and what to do."""
    with database.read() as session:
        return catalog.read_report(session, find(session, Dataset, dataset_id))


@router.get("/{dataset_id}/images", responses=problems(409))
def list_dataset_images(
    dataset_id: str,
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    split: Split | None = None,
    identity: LabelFilter | None = None,
    camera: LabelFilter | None = None,
) -> Listing[DatasetImageAnswer]:
    """The images split by split, in the order of their paths; an empty `camera` asks for those without one."""
    with database.read() as session:
        dataset = find(session, Dataset, dataset_id)
        if dataset_state(session, dataset)[0] == "pending":
            raise Problem(
                "wrong-state", f"Data set {dataset.name!r} is still being read.", hint="Wait until it is ready."
            )
        query = filter_equal(
            select(DatasetImage).where(DatasetImage.dataset_id == dataset.id),
            (DatasetImage.split, split),
            (DatasetImage.identity, identity),
            (DatasetImage.camera, camera),
        )
        prefix = prefix_of(request)
        return list_page(
            session, query, DatasetImage.id, page, answer_of=lambda image: DatasetImageAnswer.of(image, prefix)
        )


@router.get("/{dataset_id}/images/{image_id}")
def read_dataset_image(
    dataset_id: str, image_id: str, request: Request, database: DatabaseDep, _caller: Reader
) -> DatasetImageAnswer:
    """An image's labels, size and place."""
    with database.read() as session:
        return DatasetImageAnswer.of(_find_image(session, dataset_id, image_id), prefix_of(request))


@router.get(
    "/{dataset_id}/images/{image_id}/content",
    response_class=FileResponse,
    responses=IMAGE_RESPONSES | problems(413, 415),
)
def read_dataset_image_content(
    dataset_id: str,
    image_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Reader,
    width: Width = None,
) -> Response:
    """The image's file as it lies there; with `width` a thumbnail of it."""
    with database.read() as session:
        path = dataset_image_path(session, settings, _find_image(session, dataset_id, image_id))
    return answer_image(request, path, width, settings=settings)


async def _receive_upload(request: Request, database: Database, settings: Settings, caller: Caller) -> DatasetAnswer:
    """The new data set; on any error its archive is gone."""
    dataset_id = new_id("ds")
    archive, folder = uploads.archive_path(settings, dataset_id), uploads.folder_path(settings, dataset_id)
    # Held until the data set has a row, so that a sweep takes it for lost only once this process is.
    with held_file(archive) as file:
        body = check(UploadBody, await receive_archive(request, file, settings))
        await run_in_threadpool(uploads.check_archive, archive)
        place = catalog.Place(folder)
        return await run_in_threadpool(add_with_job, request, database, settings, caller, body, place, dataset_id)


def _register_folder(
    request: Request, database: Database, settings: Settings, caller: Caller, body: FolderBody
) -> DatasetAnswer:
    place = catalog.find_place(settings, body.path)
    ensure_free_space(settings.home, needed_bytes=0, min_free_bytes=settings.min_free_bytes)
    return add_with_job(request, database, settings, caller, body, place)


def add_with_job(
    request: Request,
    database: Database,
    settings: Settings,
    caller: Caller,
    body: UploadBody,
    place: catalog.Place,
    dataset_id: str | None = None,
    *,
    export: Export | None = None,
) -> DatasetAnswer:
    """The new data set and the job that reads it, in one transaction; `export` is the feedback that it was made of."""
    with database.write() as session:
        if export is not None:
            lock_exported(session, export)
        dataset = catalog.add_dataset(session, settings, body, place, dataset_id)
        if export is not None:
            dataset.declaration = {**(dataset.declaration or {}), "feedback_of": export.gallery_id}
        _enqueue_reading(session, dataset)
        audit.record(
            session, key_id=caller.key_id, action="dataset.register", target=dataset.id, uploaded=dataset.uploaded
        )
        session.flush()
        return DatasetAnswer.of(session, dataset, prefix_of(request))


def _enqueue_reading(session: Session, dataset: Dataset) -> None:
    """Starts the job that reads the data set, in the transaction of `session`."""
    spec = {"dataset": dataset.id, "name": dataset.name, "path": dataset.path, "format": dataset.format}
    enqueue(session, "register", spec | {"declaration": dataset.declaration}, datasets=[dataset.id])


def _find_image(session: Session, dataset_key: str, image_id: str) -> DatasetImage:
    dataset = find(session, Dataset, dataset_key)
    image = session.get(DatasetImage, image_id)
    if image is None or image.dataset_id != dataset.id:
        raise not_found(f"image of data set {dataset.name!r} with the id", image_id)
    return image
