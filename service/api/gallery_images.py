"""The images of galleries over the API: add, look through, erase; and persons, who are erased by their label."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import TypeAdapter
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from service.api.contents import check, check_field, is_json, read_json
from service.api.dependencies import (
    DatabaseDep,
    PageDep,
    SettingsDep,
    accepted_headers,
    as_response,
    loaded_engine,
    prefix_of,
    require,
)
from service.api.files import IMAGE_RESPONSES
from service.api.forms import Form, open_form, too_many_files
from service.api.galleries import enqueue_split
from service.api.image_filters import FiltersDep
from service.api.openapi import problems
from service.api.pagination import list_page
from service.api.thumbnails import Width, answer_image
from service.auth import Caller, demand
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem, invalid_request
from service.galleries.conflicts import OnConflict
from service.galleries.erasure import erase_identity, erase_image, erase_images
from service.galleries.filters import condition_of
from service.galleries.image_files import image_path
from service.galleries.image_schemas import (
    AddedImage,
    GalleryImageAnswer,
    IdentityBody,
    ImageDetails,
    ImageLink,
    ReceiptAnswer,
    RejectedFile,
    SkippedImage,
    UploadAnswer,
)
from service.galleries.images import find_image
from service.galleries.labelling import edit_image
from service.galleries.schemas import GalleryAnswer, SplitBody
from service.galleries.uploads import Addition, Upload, add_uploads
from service.schemas import Listing
from service.settings import Settings

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]
Eraser = Annotated[Caller, require("erase")]

_METADATA = TypeAdapter(list[ImageDetails])

_ON_CONFLICT = (
    "what becomes of an image whose `external_id` the gallery has: `add` it beside, `skip` it, or `replace` the known "
    "ones, which are erased and need the scope `erase`"
)

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


@router.post(
    "/{gallery_id}/images",
    status_code=201,
    responses={
        200: {"description": "Every image was known already.", "model": UploadAnswer},
        202: {"description": "A job adds the split.", "model": GalleryAnswer},
        **problems(500),
    },
    response_model=UploadAnswer,
    openapi_extra={"requestBody": _IMAGES_BODY},
)
async def add_images(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
    on_conflict: Annotated[OnConflict, Query(description=_ON_CONFLICT)] = "add",
) -> Response:
    """Add images, which the next search finds; or as JSON a data set's split, by a job."""
    if on_conflict == "replace":
        demand(caller, "erase")
    if is_json(request):
        if on_conflict != "add":
            message = "images of a data set have no external id that could be known already"
            raise invalid_request("/query/on_conflict", "unexpected", message)
        split = check(SplitBody, await read_json(request))
        return await run_in_threadpool(_add_split, database, gallery_id, split, request)
    state = request.app.state
    state.uploads.refuse_if_full()
    async with open_form(request, partial(_admit_image, settings)) as form:
        uploads = await run_in_threadpool(_read_uploads, form, settings)
        async with state.uploads.turn():
            engine = await run_in_threadpool(loaded_engine, request)
            add = partial(add_uploads, on_conflict=on_conflict, key_id=caller.key_id)
            addition = await run_in_threadpool(
                add, database, settings, gallery_id, uploads, engine.encoder, state.decoder
            )
    return _added(addition, prefix_of(request))


@router.get("/{gallery_id}/images")
def list_images(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    filters: FiltersDep,
) -> Listing[GalleryImageAnswer]:
    """The gallery's images in the order in which they came."""
    prefix = prefix_of(request)
    with database.read() as session:
        wanted = select(GalleryImage).where(GalleryImage.gallery_id == find(session, Gallery, gallery_id).id)
        if given := filters.given():
            wanted = wanted.where(condition_of(given))
        return list_page(
            session, wanted, GalleryImage.id, page, answer_of=lambda image: GalleryImageAnswer.of(image, prefix)
        )


@router.delete("/{gallery_id}/images")
def remove_images(
    gallery_id: str,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Eraser,
    filters: FiltersDep,
) -> ReceiptAnswer:
    """Erase the images that have all that is given; at least one filter is needed. The answer is a receipt."""
    return erase_images(database, settings, gallery_id, filters.given(), key_id=caller.key_id)


@router.get("/{gallery_id}/images/{image_id}", responses=problems(410))
def read_image(
    gallery_id: str, image_id: str, request: Request, database: DatabaseDep, _caller: Reader
) -> GalleryImageAnswer:
    """An image's labels, size and origin."""
    with database.read() as session:
        return GalleryImageAnswer.of(find_image(session, gallery_id, image_id), prefix_of(request))


@router.patch("/{gallery_id}/images/{image_id}", responses=problems(410))
def edit_labels(
    gallery_id: str, image_id: str, body: ImageDetails, request: Request, database: DatabaseDep, caller: Writer
) -> GalleryImageAnswer:
    """Change an image's identity, camera, time or external id: those that are sent; null clears one."""
    image = edit_image(database, gallery_id, image_id, body, key_id=caller.key_id)
    return GalleryImageAnswer.of(image, prefix_of(request))


@router.get(
    "/{gallery_id}/images/{image_id}/content",
    response_class=FileResponse,
    responses=IMAGE_RESPONSES | problems(410, 413, 415),
)
def read_image_content(
    gallery_id: str,
    image_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Reader,
    width: Width = None,
) -> Response:
    """The image as it was uploaded, or as it lies in its data set; with `width` a thumbnail of it."""
    with database.read() as session:
        image = find_image(session, gallery_id, image_id)
        path = image_path(session, settings, image)
    return answer_image(request, path, width, settings=settings, sha256=image.sha256)


@router.delete("/{gallery_id}/images/{image_id}", status_code=204, responses=problems(410))
def remove_image(gallery_id: str, image_id: str, database: DatabaseDep, settings: SettingsDep, caller: Eraser) -> None:
    """Erase one image: it is gone from the next search, and asking for it is answered with 410."""
    erase_image(database, settings, gallery_id, image_id, key_id=caller.key_id)


@router.post("/{gallery_id}/identities/erase")
def remove_identity_by_body(
    gallery_id: str, body: IdentityBody, database: DatabaseDep, settings: SettingsDep, caller: Eraser
) -> ReceiptAnswer:
    """Erase a person, as `DELETE`, whose address ends in proxies' logs and takes not every label."""
    return erase_identity(database, settings, gallery_id, body.identity, key_id=caller.key_id)


@router.delete("/{gallery_id}/identities/{identity:path}")
def remove_identity(
    gallery_id: str, identity: str, database: DatabaseDep, settings: SettingsDep, caller: Eraser
) -> ReceiptAnswer:
    """Erase a person: vectors, stored images and rows. The answer is a receipt of what was removed."""
    return erase_identity(database, settings, gallery_id, identity, key_id=caller.key_id)


def _add_split(database: Database, gallery_id: str, body: SplitBody, request: Request) -> Response:
    with database.write() as session:
        gallery = find(session, Gallery, gallery_id)
        enqueue_split(session, gallery, body.dataset, body.split)
        answer = GalleryAnswer.of(session, gallery, prefix_of(request))
    request.app.state.send(answer.job, "index")
    return as_response(answer, 202, accepted_headers(f"{prefix_of(request)}/jobs/{answer.job}"))


def _admit_image(settings: Settings, name: str, number: int) -> None:
    if name not in ("files", "metadata"):
        raise _unexpected(name)
    if number > settings.max_images_per_request + 1:  # `metadata` may be a file, too
        raise too_many_files("REID_MAX_IMAGES_PER_REQUEST", settings.max_images_per_request)


def _read_uploads(form: Form, settings: Settings) -> list[Upload]:
    """The form's files, each with its entry of `metadata`; raises 422."""
    for name, _ in form.texts:
        if name != "metadata":
            raise _unexpected(name)
    files = form.open_files("files")
    if not files:
        raise invalid_request("/files", "missing", "there are no files; send each as a part called `files`")
    if len(files) > settings.max_images_per_request:
        raise too_many_files("REID_MAX_IMAGES_PER_REQUEST", settings.max_images_per_request)
    details = _read_metadata(form, len(files), settings)
    return [Upload(filename, file, known) for (filename, file), known in zip(files, details, strict=True)]


def _read_metadata(form: Form, count: int, settings: Settings) -> list[ImageDetails]:
    found = form.values("metadata") + [file.read(settings.max_json_bytes) for _, file in form.open_files("metadata")]
    if not found:
        return [ImageDetails()] * count
    if len(found) > 1:
        raise invalid_request("/metadata", "repeated", "metadata is given once")
    details = check_field(_METADATA, found[0], "metadata")
    if len(details) != count:
        raise invalid_request("/metadata", "wrong-length", f"metadata has {len(details)} entries for {count} files")
    return details


def _added(addition: Addition, prefix: str) -> Response:
    images = f"{prefix}/galleries/{addition.gallery_id}/images"
    answer = UploadAnswer(
        added=[
            AddedImage(image=image, filename=name, replaces=replaced, links=ImageLink(image=f"{images}/{image}"))
            for image, name, replaced in addition.added
        ],
        skipped=[
            SkippedImage(image=image, filename=name, links=ImageLink(image=f"{images}/{image}"))
            for name, image in addition.skipped
        ],
        rejected=[
            RejectedFile(filename=name, problem=problem.answer(instance=images)) for name, problem in addition.rejected
        ],
        warnings=addition.warnings,
        revision=addition.revision,
    )
    location = f"{images}/{addition.added[0][0]}" if len(addition.added) == 1 else images
    return as_response(answer, 201 if addition.added else 200, {"Location": location})


def _unexpected(name: str) -> Problem:
    return invalid_request(f"/{name}", "unexpected", f"{name!r} is no file of `files` and not `metadata`")
