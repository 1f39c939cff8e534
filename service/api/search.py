"""Search over the API: by a stored picture, by uploaded ones, or by an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, QueryParams, UploadFile

from reid_core.errors import Fault
from service.api.contents import check, is_json, open_form, read_json
from service.api.dependencies import SettingsDep, loaded_engine, require
from service.api.links import prefix_of
from service.auth import Caller
from service.errors import Problem
from service.search.queries import EmbeddingQuery, PictureParameters, PictureQuery, StoredQuery
from service.settings import Settings

router = APIRouter(prefix="/search", tags=["search"])

Searcher = Annotated[Caller, require("search")]

_LISTS = ("camera", "exclude_camera")


def _form_schema() -> dict[str, Any]:
    schema = PictureQuery.model_json_schema()
    pictures = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    return schema | {
        "required": ["image"],
        "properties": {"image": pictures} | schema["properties"],
    }


_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _form_schema()},
        "application/json": {"schema": EmbeddingQuery.model_json_schema() | {"required": ["embedding"]}},
    },
}


@router.get("")
def search_by_stored_picture(
    query: Annotated[StoredQuery, Query()], request: Request, caller: Searcher
) -> dict[str, Any]:
    """Pictures like the one called `image_id`, of a gallery or a data set; best first."""
    return loaded_engine(request).search(query, key_id=caller.key_id).as_json(prefix_of(request))


@router.post("", openapi_extra={"requestBody": _BODY})
async def search_by_uploaded_pictures(
    _in_address: Annotated[PictureParameters, Query()], request: Request, settings: SettingsDep, caller: Searcher
) -> dict[str, Any]:
    """Pictures like the uploaded ones of one person (`image`), or, as JSON, like an `embedding`; best first.

    What GET takes stands in the form, in the JSON or in the address. Several pictures are fused to their mean, or
    with `fusion=max` the best score counts.
    """
    if is_json(request):
        query = check(EmbeddingQuery, _joined(request.query_params, await read_json(request)))
        return await run_in_threadpool(_search, request, query, (), caller)
    limit = settings.max_query_images
    async with open_form(request, max_files=limit, setting="REID_MAX_QUERY_IMAGES") as form:
        fields = {name: _values(form, name) for name in form if name != "image"}
        picture_query = check(PictureQuery, _joined(request.query_params, fields))
        pictures = await run_in_threadpool(_read_pictures, form, settings)
    return await run_in_threadpool(_search, request, picture_query, pictures, caller)


@router.get(
    "/{search_id}/results/{rank}/explanation.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def draw_explanation(search_id: str, rank: int, request: Request, caller: Searcher) -> Response:
    """The query and the result at `rank` side by side, lines between the places that correspond.

    Of a search with `explain=true`, for REID_EXPLANATION_MINUTES, for who searched.
    """
    drawn = loaded_engine(request).explanation(search_id, rank, caller)
    return Response(drawn, media_type="image/png", headers={"Cache-Control": "private, no-store"})


def _search(
    request: Request, query: PictureQuery | EmbeddingQuery, pictures: Sequence[bytes], caller: Caller
) -> dict[str, Any]:
    answer = loaded_engine(request).search(query, pictures, key_id=caller.key_id)
    return answer.as_json(prefix_of(request))


def _joined(address: QueryParams, body: Any) -> Any:
    """The body's values and those in the address; raises 422 for what stands in both."""
    if not isinstance(body, dict):
        return body
    twice = sorted(body.keys() & address.keys())
    if twice:
        message = f"{twice[0]!r} stands in the address and in the body"
        raise Problem("invalid-request", message, errors=[Fault(f"/{twice[0]}", "given-twice", message)])
    return {name: _values(address, name) for name in address} | body


def _values(source: FormData | QueryParams, name: str) -> Any:
    """All values of a field that is a list, else the only one; two of them stay a list, which no other field takes."""
    values = source.getlist(name)
    return values if name in _LISTS or len(values) > 1 else values[0]


def _read_pictures(form: FormData, settings: Settings) -> list[bytes]:
    """The files called `image`, read one byte beyond what is allowed at most."""
    parts = form.getlist("image")
    files = [part.file for part in parts if isinstance(part, UploadFile)]
    if not files or len(files) != len(parts):
        message = "there is no picture; send each as a file called `image`"
        raise Problem("invalid-request", message, errors=[Fault("/image", "missing", message)])
    return [file.read(settings.max_picture_bytes + 1) for file in files]
