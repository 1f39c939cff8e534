"""Verification over the API: two images, or images and a person of a gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from service.api.contents import check, is_json, read_json
from service.api.dependencies import SettingsDep, loaded_engine, require
from service.api.forms import open_form
from service.api.openapi import problems
from service.api.query_form import admit_images, fields_of, read_files
from service.auth import Caller
from service.errors import invalid_request
from service.search.schemas import VerifyAnswer, VerifyQuery

router = APIRouter(prefix="/galleries", tags=["search"])

Searcher = Annotated[Caller, require("search")]

_SCHEMA = VerifyQuery.model_json_schema()
_IMAGES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _SCHEMA | {"properties": {"image": _IMAGES} | _SCHEMA["properties"]}},
        "application/json": {"schema": _SCHEMA},
    },
}


@router.post(
    "/{gallery_id}/verify",
    responses=problems(409, 410, 413, 415, 500),
    openapi_extra={"requestBody": _BODY},
)
async def verify(gallery_id: str, request: Request, settings: SettingsDep, caller: Searcher) -> VerifyAnswer:
    """Compare two images, or images with the gallery's person `identity`: do they show the same person?

    Images are files called `image` or ids (`image_id`), of any gallery or data set; they are compared by this
    gallery's models.
    """
    request.app.state.searches.refuse_if_full()
    if is_json(request):
        return await _verify(request, gallery_id, caller, check(VerifyQuery, await read_json(request)), tuple)
    async with open_form(request, admit_images(settings, ("image",))) as form:
        query = check(VerifyQuery, fields_of(form, ("image_id",)))
        if form.values("image"):
            raise invalid_request("/image", "not-a-file", "`image` is a file; an id is sent as `image_id`")
        return await _verify(request, gallery_id, caller, query, partial(read_files, form, "image", settings))


async def _verify(
    request: Request, gallery_id: str, caller: Caller, query: VerifyQuery, read: Callable[[], Sequence[bytes]]
) -> VerifyAnswer:
    def compare() -> VerifyAnswer:
        return loaded_engine(request).verifier.verify(query, gallery_id, read(), key_id=caller.key_id)

    async with request.app.state.searches.turn():
        return await run_in_threadpool(compare)
