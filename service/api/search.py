"""Search over the API: by a stored image, by uploaded ones, or by an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from service.api.contents import check, is_json, read_json
from service.api.dependencies import SettingsDep, as_response, loaded_engine, prefix_of, require
from service.api.files import PNG_RESPONSES
from service.api.forms import Form, open_form, too_many_files
from service.api.openapi import problems
from service.auth import Caller
from service.errors import invalid_request
from service.search.schemas import EmbeddingQuery, ImageParameters, ImageQuery, SearchAnswer, StoredQuery
from service.search.schemas import Query as AnyQuery
from service.settings import Settings

router = APIRouter(prefix="/search", tags=["search"])

Searcher = Annotated[Caller, require("search")]

_PROBLEMS = problems(404, 409, 410, 413, 415, 500, 507)

_LISTS = ("camera", "exclude_camera")


def _form_schema() -> dict[str, Any]:
    schema = ImageQuery.model_json_schema()
    images = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    return schema | {
        "required": ["image"],
        "properties": {"image": images} | schema["properties"],
    }


_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _form_schema()},
        "application/json": {"schema": EmbeddingQuery.model_json_schema() | {"required": ["embedding"]}},
    },
}


@router.get("", response_model=SearchAnswer, responses=_PROBLEMS)
async def search_by_stored_image(
    query: Annotated[StoredQuery, Query()], request: Request, caller: Searcher
) -> Response:
    """Images like the one called `image_id`, of a gallery or a data set; best first."""
    return await _search(request, caller, query)


@router.post("", response_model=SearchAnswer, responses=_PROBLEMS, openapi_extra={"requestBody": _BODY})
async def search_by_uploaded_images(
    _in_address: Annotated[ImageParameters, Query()], request: Request, settings: SettingsDep, caller: Searcher
) -> Response:
    """Images like the uploaded ones of one person (`image`), or, as JSON, like an `embedding`; best first.

    What GET takes stands in the form, in the JSON or in the address. Several images are fused to their mean, or
    with `fusion=max` the best score counts.
    """
    request.app.state.searches.refuse_if_full()
    if is_json(request):
        query = check(EmbeddingQuery, _joined(request.query_params, await read_json(request)))
        return await _search(request, caller, query)
    async with open_form(request, partial(_admit_image, settings)) as form:
        fields = {name: _only(name, form.values(name)) for name in form.names if name != "image"}
        image_query = check(ImageQuery, _joined(request.query_params, fields))
        return await _search(request, caller, image_query, partial(_read_images, form, settings))


@router.get(
    "/{search_id}/results/{rank}/explanation.png",
    response_class=Response,
    responses=PNG_RESPONSES | problems(410, 413, 415, 500),
)
async def draw_explanation(search_id: str, rank: int, request: Request, caller: Searcher) -> Response:
    """The query and the result at `rank` side by side, lines between the places that correspond.

    Of a search with `explain=true`, for REID_EXPLANATION_MINUTES, for who searched.
    """
    async with request.app.state.searches.turn():
        engine = await run_in_threadpool(loaded_engine, request)
        drawn = await run_in_threadpool(engine.explanation, search_id, rank, caller)
    return Response(drawn, media_type="image/png", headers={"Cache-Control": "private, no-store"})


async def _search(
    request: Request, caller: Caller, query: AnyQuery, read_images: Callable[[], Sequence[bytes]] = tuple
) -> Response:
    def search() -> Response:  # all of it in one thread: each change of thread is a wait of its own
        outcome = loaded_engine(request).search(query, read_images(), key_id=caller.key_id)
        return as_response(outcome.answer(prefix_of(request)))

    async with request.app.state.searches.turn():
        return await run_in_threadpool(search)


def _joined(address: QueryParams, body: Any) -> Any:
    """The body's values and those in the address; raises 422 for what stands in both."""
    if not isinstance(body, dict):
        return body
    twice = sorted(body.keys() & address.keys())
    if twice:
        message = f"{twice[0]!r} stands in the address and in the body"
        raise invalid_request(f"/{twice[0]}", "given-twice", message)
    return {name: _only(name, address.getlist(name)) for name in address} | body


def _only(name: str, values: list[str]) -> Any:
    """All values of a field that is a list, else the only one; two of them stay a list, which no other field takes."""
    return values if name in _LISTS or len(values) > 1 else values[0]


def _admit_image(settings: Settings, name: str, number: int) -> None:
    if name != "image":
        raise invalid_request(f"/{name}", "unexpected", f"{name!r} is a file; images are sent as files called `image`")
    if number > settings.max_query_images:
        raise too_many_files("REID_MAX_QUERY_IMAGES", settings.max_query_images)


def _read_images(form: Form, settings: Settings) -> list[bytes]:
    """The files called `image`, read one byte beyond what is allowed at most."""
    files = form.open_files("image")
    if not files or form.values("image"):
        raise invalid_request("/image", "missing", "there is no image; send each as a file called `image`")
    return [file.read(settings.max_picture_bytes + 1) for _, file in files]
