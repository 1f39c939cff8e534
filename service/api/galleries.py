"""Galleries over the API: make, fill, look through, erase."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from reid_core.errors import Fault
from service.api.contents import check, check_field, is_json, open_form, read_json
from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, require
from service.api.files import answer_file
from service.api.links import prefix_of
from service.api.pagination import list_page, narrowed
from service.auth import Caller
from service.bodies import LabelFilter
from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.bodies import GalleryBody, PictureDetails, SplitBody
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.images import find_image, image_as_json
from service.galleries.lifecycle import create_gallery, delete_gallery, find_split, gallery_as_json
from service.galleries.uploads import Addition, Upload, add_uploads
from service.jobs import enqueue
from service.pictures import media_type, picture_path

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]
Eraser = Annotated[Caller, require("erase")]

_METADATA = TypeAdapter(list[PictureDetails])
_FILES_SETTING = "REID_MAX_IMAGES_PER_REQUEST"

_IMAGES_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                    "metadata": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "description": "a JSON list in the files' order: camera, captured_at, identity, external_id",
                    },
                },
            }
        },
        "application/json": {"schema": SplitBody.model_json_schema()},
    },
}


@router.post("", status_code=201, responses={202: {"description": "A job adds the data set's pictures."}})
def make_gallery(
    body: GalleryBody, request: Request, database: DatabaseDep, settings: SettingsDep, caller: Writer
) -> JSONResponse:
    """Make a gallery. With `dataset` it is filled by the job that the answer names."""
    prefix = prefix_of(request)
    with database.write() as session:
        gallery = create_gallery(session, settings, body)
        audit.record(session, key_id=caller.key_id, action="gallery.create", target=gallery.id)
        if body.dataset is not None:
            _enqueue_split(session, gallery, body.dataset.id, body.dataset.split)
        shown = gallery_as_json(session, gallery, prefix)
    headers = {"Location": shown["links"]["self"]}
    if body.dataset is None:
        return JSONResponse(shown, status_code=201, headers=headers)
    return _accepted(request, shown, headers)


@router.get("")
def list_galleries(request: Request, database: DatabaseDep, page: PageDep, _caller: Reader) -> dict[str, Any]:
    """Galleries, newest first."""
    prefix = prefix_of(request)
    with database.read() as session:

        def as_json(gallery: Gallery) -> dict[str, Any]:
            return gallery_as_json(session, gallery, prefix)

        return list_page(session, select(Gallery), Gallery.id, page, as_json=as_json, newest_first=True)


@router.get("/{gallery_id}")
def read_gallery(gallery_id: str, request: Request, database: DatabaseDep, _caller: Reader) -> dict[str, Any]:
    """One gallery, by id or name."""
    with database.read() as session:
        return gallery_as_json(session, find(session, Gallery, gallery_id), prefix_of(request))


@router.delete("/{gallery_id}", status_code=204)
def remove_gallery(gallery_id: str, database: DatabaseDep, settings: SettingsDep, caller: Eraser) -> None:
    """Delete a gallery with its pictures, vectors and rows."""
    delete_gallery(database, settings, gallery_id, key_id=caller.key_id)


@router.post(
    "/{gallery_id}/images",
    status_code=201,
    responses={202: {"description": "A job adds the split."}},
    openapi_extra={"requestBody": _IMAGES_BODY},
)
async def add_images(
    gallery_id: str, request: Request, database: DatabaseDep, settings: SettingsDep, _caller: Writer
) -> JSONResponse:
    """Add pictures, which the next search finds; or as JSON a data set's split, by a job."""
    if is_json(request):
        split = check(SplitBody, await read_json(request))
        return await run_in_threadpool(_add_split, database, gallery_id, split, request)
    async with open_form(request, max_files=settings.max_images_per_request, setting=_FILES_SETTING) as form:
        uploads = await run_in_threadpool(_read_uploads, form)
        encoder_for = request.app.state.engine.encoder
        addition = await run_in_threadpool(add_uploads, database, settings, gallery_id, uploads, encoder_for)
    return _added(addition, prefix_of(request))


@router.get("/{gallery_id}/images")
def list_images(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    identity: LabelFilter | None = None,
    camera: LabelFilter | None = None,
) -> dict[str, Any]:
    """The gallery's pictures in the order in which they came."""
    prefix = prefix_of(request)
    with database.read() as session:
        wanted = narrowed(
            select(GalleryImage).where(GalleryImage.gallery_id == find(session, Gallery, gallery_id).id),
            (GalleryImage.identity, identity),
            (GalleryImage.camera, camera),
        )
        return list_page(session, wanted, GalleryImage.id, page, as_json=lambda image: image_as_json(image, prefix))


@router.get("/{gallery_id}/images/{image_id}")
def read_image(
    gallery_id: str, image_id: str, request: Request, database: DatabaseDep, _caller: Reader
) -> dict[str, Any]:
    """What is known of a picture."""
    with database.read() as session:
        return image_as_json(find_image(session, gallery_id, image_id), prefix_of(request))


@router.get(
    "/{gallery_id}/images/{image_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"image/*": {}}}, 304: {"description": "As in `If-None-Match`."}},
)
def read_image_content(
    gallery_id: str, image_id: str, request: Request, database: DatabaseDep, settings: SettingsDep, _caller: Reader
) -> Response:
    """The picture as it was uploaded, or as it lies in its data set."""
    with database.read() as session:
        image = find_image(session, gallery_id, image_id)
        path = picture_path(session, settings, image)
    return answer_file(request, path, media_type(path), sha256=image.sha256)


@router.delete("/{gallery_id}/images/{image_id}", status_code=204)
def remove_image(gallery_id: str, image_id: str, database: DatabaseDep, settings: SettingsDep, caller: Eraser) -> None:
    """Erase one picture: it is gone from the next search, and asking for it is answered with 410."""
    erase_image(database, settings, gallery_id, image_id, key_id=caller.key_id)


@router.delete("/{gallery_id}/identities/{identity:path}")
def remove_identity(
    gallery_id: str, identity: str, database: DatabaseDep, settings: SettingsDep, caller: Eraser
) -> dict[str, Any]:
    """Erase a person: vectors, stored pictures and rows. The answer is a receipt of what was removed."""
    return erase_identity(database, settings, gallery_id, identity, key_id=caller.key_id)


def _enqueue_split(session: Session, gallery: Gallery, dataset_key: str, split: str) -> None:
    """Starts the job that adds the split, in the transaction of `session`."""
    dataset = find_split(session, dataset_key, split)
    spec = {"gallery": gallery.id, "add": {"dataset": dataset.id, "split": split}}
    enqueue(session, "index", spec, datasets=[dataset.id])


def _add_split(database: Database, gallery_id: str, body: SplitBody, request: Request) -> JSONResponse:
    with database.write() as session:
        gallery = find(session, Gallery, gallery_id)
        _enqueue_split(session, gallery, body.dataset, body.split)
        shown = gallery_as_json(session, gallery, prefix_of(request))
    return _accepted(request, shown, {"Location": shown["links"]["job"]})


def _accepted(request: Request, shown: dict[str, Any], headers: dict[str, str]) -> JSONResponse:
    """Sends the gallery's job to its queue, after the commit, and answers 202."""
    request.app.state.send(shown["job"], "index")
    return JSONResponse(shown, status_code=202, headers=headers | {"Retry-After": "1"})


def _read_uploads(form: FormData) -> list[Upload]:
    """The form's files, each with its entry of `metadata`; raises 422."""
    files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
    unknown = [name for name in form if name not in ("files", "metadata")]
    if unknown or len(files) != len(form.getlist("files")):
        name = unknown[0] if unknown else "files"
        raise _wrong(name, "unexpected", f"{name!r} is no file of `files` and not `metadata`")
    if not files:
        raise _wrong("files", "missing", "there are no files; send each as a part called `files`")
    details = _read_metadata(form, len(files))
    return [Upload(file.filename or "", file.file, known) for file, known in zip(files, details, strict=True)]


def _read_metadata(form: FormData, count: int) -> list[PictureDetails]:
    value = form.get("metadata")
    if value is None:
        return [PictureDetails()] * count
    text = value.file.read() if isinstance(value, UploadFile) else value
    details = check_field(_METADATA, text, "metadata")
    if len(details) != count:
        raise _wrong("metadata", "wrong-length", f"metadata has {len(details)} entries for {count} files")
    return details


def _added(addition: Addition, prefix: str) -> JSONResponse:
    images = f"{prefix}/galleries/{addition.gallery_id}/images"
    shown = {
        "added": [
            {"image": image, "filename": filename, "links": {"image": f"{images}/{image}"}}
            for image, filename in addition.added
        ],
        "rejected": [
            {"filename": filename, "problem": problem.as_json(instance=images)}
            for filename, problem in addition.rejected
        ],
        "warnings": [asdict(warning) for warning in addition.warnings],
        "revision": addition.revision,
    }
    location = f"{images}/{addition.added[0][0]}" if len(addition.added) == 1 else images
    return JSONResponse(shown, status_code=201, headers={"Location": location})


def _wrong(field: str, code: str, message: str) -> Problem:
    return Problem("invalid-request", message, errors=[Fault(f"/{field}", code, message)])
