"""Search over the API: by a stored image, by uploaded ones, or by an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.contents import check, is_json, read_json
from service.api.dependencies import SettingsDep, as_response, loaded_engine, prefix_of, require
from service.api.files import PNG_RESPONSES
from service.api.forms import Form, open_form
from service.api.openapi import problems
from service.api.query_form import admit_images, fields_of, joined, read_files
from service.auth import Caller
from service.errors import invalid_request
from service.search.examples import NO_EXAMPLES, ExampleFiles
from service.search.schemas import EmbeddingQuery, ImageParameters, ImageQuery, SearchAnswer, StoredQuery
from service.search.schemas import Query as AnyQuery
from service.settings import Settings

router = APIRouter(prefix="/search", tags=["search"])

Searcher = Annotated[Caller, require("search")]

_PROBLEMS = problems(404, 409, 410, 413, 415, 500, 507)

_LISTS = ("camera", "exclude_camera", "positive", "negative")
_FILES = ("image", "positive", "negative")

_Images = tuple[Sequence[bytes], ExampleFiles]
_NO_IMAGES: _Images = (), NO_EXAMPLES


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
    with `fusion=max` the best score counts. Examples (`positive`, `negative`) are ids or files.
    """
    request.app.state.searches.refuse_if_full()
    if is_json(request):
        query = check(EmbeddingQuery, joined(request.query_params, await read_json(request), _LISTS))
        return await _search(request, caller, query)
    async with open_form(request, admit_images(settings, _FILES)) as form:
        image_query = check(ImageQuery, joined(request.query_params, fields_of(form, _LISTS), _LISTS))
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
    request: Request, caller: Caller, query: AnyQuery, read_images: Callable[[], _Images] = lambda: _NO_IMAGES
) -> Response:
    def search() -> Response:  # all of it in one thread: each change of thread is a wait of its own
        images, examples = read_images()
        outcome = loaded_engine(request).search(query, images, key_id=caller.key_id, examples=examples)
        return as_response(outcome.answer(prefix_of(request)))

    async with request.app.state.searches.turn():
        return await run_in_threadpool(search)


def _read_images(form: Form, settings: Settings) -> _Images:
    """The files called `image`, and those of examples."""
    images = read_files(form, "image", settings)
    if not images or form.values("image"):
        raise invalid_request("/image", "missing", "there is no image; send each as a file called `image`")
    return images, ExampleFiles(*(read_files(form, name, settings) for name in ("positive", "negative")))
