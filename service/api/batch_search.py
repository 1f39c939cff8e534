"""Many searches in one request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.contents import check, is_json, read_json
from service.api.dependencies import SettingsDep, as_response, loaded_engine, prefix_of, require
from service.api.forms import Form, open_form, too_many_files
from service.api.openapi import problems
from service.auth import Caller
from service.errors import invalid_request
from service.search.batch_schemas import BatchAnswer, BatchBody, ImageBatch
from service.search.schemas import ImageQuery, Query
from service.settings import Settings

router = APIRouter(prefix="/search", tags=["search"])

Searcher = Annotated[Caller, require("search")]

_LISTS = ("camera", "exclude_camera")


def _form_schema() -> dict[str, Any]:
    schema = ImageBatch.model_json_schema()
    images = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    return schema | {"required": ["gallery", "image"], "properties": {"image": images} | schema["properties"]}


def _json_schema() -> dict[str, Any]:
    schema = BatchBody.model_json_schema()
    schema["properties"]["queries"]["items"] = schema.pop("$defs")["BatchItem"]  # no reference to what is not there
    return schema


_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": _json_schema()},
        "multipart/form-data": {"schema": _form_schema()},
    },
}


@router.post(
    "/batch",
    response_model=BatchAnswer,
    responses=problems(404, 409, 413, 415, 500),
    openapi_extra={"requestBody": _BODY},
)
async def search_by_many(request: Request, settings: SettingsDep, caller: Searcher) -> Response:
    """Search a gallery by many stored images and embeddings, or uploaded images (`image`), at once.

    There are REID_MAX_BATCH_QUERIES at most, with the same filters and `rerank`. The answers come in their order; a
    query that cannot be answered has its problem among them.
    """
    request.app.state.searches.refuse_if_full()
    if is_json(request):
        body = check(BatchBody, await read_json(request))
        if len(body.queries) > settings.max_batch_queries:
            message = f"there are {len(body.queries)} queries, at most {settings.max_batch_queries} are allowed"
            hint = "Send them in several requests, as a `search_batch` job, or raise REID_MAX_BATCH_QUERIES."
            raise invalid_request("/queries", "too-many", message, hint=hint)
        return await _search(request, caller, body.common, body.each())
    async with open_form(request, partial(_admit_image, settings)) as form:
        files = form.open_files("image")
        if not files or form.values("image"):
            raise invalid_request("/image", "missing", "there is no image; send each as a file called `image`")
        batch = check(ImageBatch, {name: _value(form, name) for name in form.names if name != "image"})
        contents = [partial(file.read, settings.max_picture_bytes + 1) for _, file in files]
        return await _search(request, caller, batch.common, [batch.common] * len(files), contents)


async def _search(
    request: Request,
    caller: Caller,
    common: ImageQuery,
    queries: Sequence[Query],
    contents: Sequence[partial[bytes]] = (),
) -> Response:
    def search() -> Response:
        outcome = loaded_engine(request).search_batch(common, queries, contents, key_id=caller.key_id)
        return as_response(outcome.answer(prefix_of(request), request.url.path))

    async with request.app.state.searches.turn():
        return await run_in_threadpool(search)


def _value(form: Form, name: str) -> Any:
    """All values of a field that is a list, else the only one; two of them stay a list, which no other field takes."""
    values = form.values(name)
    return values if name in _LISTS or len(values) > 1 else values[0]


def _admit_image(settings: Settings, name: str, number: int) -> None:
    if name != "image":
        raise invalid_request(f"/{name}", "unexpected", f"{name!r} is a file; images are sent as files called `image`")
    if number > settings.max_batch_queries:
        raise too_many_files("REID_MAX_BATCH_QUERIES", settings.max_batch_queries)
