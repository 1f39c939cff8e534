"""Embeddings over the API: of uploaded images, out of a gallery, and into one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, cast

import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from service.api.contents import is_json
from service.api.dependencies import DatabaseDep, SettingsDep, as_response, loaded_engine, prefix_of, require
from service.api.forms import Form, open_form, too_many_files
from service.api.openapi import Responses, problems
from service.auth import Caller, demand
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Model
from service.errors import Problem, invalid_request
from service.galleries.conflicts import OnConflict
from service.galleries.embedding_schemas import EmbeddedImage, EmbeddingsAdded, EmbeddingsAnswer
from service.settings import Settings

if TYPE_CHECKING:  # brings PyArrow, which a start does without
    from service.galleries.embedding_import import EmbeddingAddition

router = APIRouter()

Reader = Annotated[Caller, require("read")]
Searcher = Annotated[Caller, require("search")]
Writer = Annotated[Caller, require("write")]

NPY, PARQUET = "application/x-npy", "application/vnd.apache.parquet"

_FILES = ("embeddings", "metadata")

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_NOTE = "These images have no picture and no local features: they are found, not shown, and not matched."

_IMAGES = {
    "type": "object",
    "required": ["model", "image"],
    "properties": {
        "model": {"type": "string", "description": "a model's id or name"},
        "image": {"type": "array", "items": _BINARY["schema"], "minItems": 1},
    },
}
_ROWS = {
    "type": "object",
    "required": ["embeddings"],
    "properties": {
        "embeddings": _BINARY["schema"] | {"description": "Parquet with a column `embedding`, or npy (N, D)"},
        "metadata": _BINARY["schema"] | {"description": "with npy: a JSON object a line, as for images"},
    },
}

_EXPORTS: Responses = {200: {"content": {PARQUET: _BINARY, NPY: _BINARY}}}


def _body(schema: Mapping[str, object]) -> dict[str, object]:
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/embeddings",
    tags=["search"],
    response_model=EmbeddingsAnswer,
    responses={200: {"content": {NPY: _BINARY}}, **problems(404, 413, 415, 500)},
    openapi_extra=_body(_IMAGES),
)
async def embed_images(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Searcher,
    accept: Annotated[str, Header()] = "*/*",
) -> Response:
    """Embed images by a model, which keeps nothing of them; an array for `Accept: application/x-npy`.

    In the array every image has its row, so one that cannot be taken refuses all.
    """
    _refuse_json(request)
    request.app.state.uploads.refuse_if_full()
    admit = partial(_admit, ("image",), settings.max_images_per_request)
    async with open_form(request, admit) as form:
        model = await run_in_threadpool(_find_model, database, _field(form, "model"))
        files = form.open_files("image")
        if not files:
            raise invalid_request("/image", "missing", "there is no image; send each as a file called `image`")
        contents = [partial(file.read, settings.max_picture_bytes + 1) for _, file in files]
        async with request.app.state.uploads.turn():
            embedded = await run_in_threadpool(_embed, request, model, contents)
    if NPY in accept:
        return Response(await run_in_threadpool(_as_npy, embedded), media_type=NPY)
    named = [(name, one) for (name, _), one in zip(files, embedded, strict=True)]
    return await run_in_threadpool(_as_json, model, named, request)  # of a thousand images it takes half a second


@router.get(
    "/galleries/{gallery_id}/embeddings", tags=["galleries"], response_class=StreamingResponse, responses=_EXPORTS
)
def read_embeddings(
    gallery_id: str,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Reader,
    format: Annotated[Literal["parquet", "npy"], Query(description="npy: the embeddings alone")] = "parquet",
) -> StreamingResponse:
    """The embeddings of a gallery's images, in the order in which these came, with what is known of each."""
    from service.galleries.embedding_export import EmbeddingExport

    export = EmbeddingExport(database, settings, gallery_id)
    headers = {
        "Content-Disposition": f'attachment; filename="{export.gallery_id}.{format}"',
        "Cache-Control": "no-store",
    }
    if format == "npy":
        headers["Content-Length"] = str(export.npy_bytes())
        return StreamingResponse(export.npy(), media_type=NPY, headers=headers)
    return StreamingResponse(export.parquet(), media_type=PARQUET, headers=headers)


@router.post(
    "/galleries/{gallery_id}/embeddings",
    status_code=201,
    tags=["galleries"],
    response_model=EmbeddingsAdded,
    responses={
        200: {"description": "Every row was known already.", "model": EmbeddingsAdded},
        **problems(409, 413, 507),
    },
    openapi_extra=_body(_ROWS),
)
async def add_rows(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
    on_conflict: Annotated[OnConflict, Query(description="as for images")] = "add",
) -> Response:
    """Add embeddings that the gallery's model made elsewhere; a row that cannot be taken refuses the whole file.

    The gallery is one that keeps neither images nor local features.
    """
    if on_conflict == "replace":
        demand(caller, "erase")
    _refuse_json(request)
    size = await run_in_threadpool(_size_of, database, gallery_id)
    request.app.state.uploads.refuse_if_full()
    async with open_form(request, partial(_admit, _FILES, len(_FILES))) as form:
        add = partial(_add, database, settings, gallery_id, form, size, on_conflict, caller.key_id)
        async with request.app.state.uploads.turn():
            addition = await run_in_threadpool(add)
    answer = EmbeddingsAdded(
        gallery=addition.gallery_id,
        added=addition.added,
        skipped=addition.skipped,
        replaced=addition.replaced,
        rescaled=addition.rescaled,
        revision=addition.revision,
        note=_NOTE,
    )
    location = f"{prefix_of(request)}/galleries/{addition.gallery_id}/images"
    return as_response(answer, 201 if addition.added else 200, {"Location": location})


def _size_of(database: Database, gallery_id: str) -> int:
    from service.galleries.embedding_import import embedding_size_of

    return embedding_size_of(database, gallery_id)


def _add(
    database: Database,
    settings: Settings,
    gallery_id: str,
    form: Form,
    size: int,
    on_conflict: OnConflict,
    key_id: str | None,
) -> EmbeddingAddition:
    from service.galleries.embedding_files import EmbeddingFile
    from service.galleries.embedding_import import add_embeddings

    if form.texts:
        raise invalid_request(f"/{form.texts[0][0]}", "unexpected", "the form has files only: embeddings and metadata")
    files = {name: [_buffered(file) for _, file in form.open_files(name)] for name in _FILES}
    for name, found in files.items():
        if len(found) > 1:
            raise invalid_request(f"/{name}", "repeated", f"{name} is given once")
    if not files["embeddings"]:
        raise invalid_request(
            "/embeddings", "missing", "there are no embeddings; send them as a file called `embeddings`"
        )
    metadata = files["metadata"][0] if files["metadata"] else None
    file = EmbeddingFile(files["embeddings"][0], metadata, size)
    return add_embeddings(database, settings, gallery_id, file, on_conflict=on_conflict, key_id=key_id)


def _buffered(file: BinaryIO) -> BinaryIO:
    """The file, read in larger pieces than a line at a time needs."""
    return io.BufferedReader(cast("io.RawIOBase", file))


def _embed(
    request: Request, model: Model, contents: Sequence[partial[bytes]]
) -> list[np.typing.NDArray[np.float32] | Problem]:
    from service.search.embeddings import embed  # brings PyTorch

    engine = loaded_engine(request)
    return embed(engine.encoder(model.id), request.app.state.decoder, contents)


def _as_npy(embedded: Sequence[np.typing.NDArray[np.float32] | Problem]) -> bytes:
    for number, one in enumerate(embedded):
        if isinstance(one, Problem):
            hint = f"{one.hint} With `Accept: application/json` the others are embedded."
            raise Problem(one.slug, f"Image {number + 1}: {one.detail}", hint=hint, errors=one.errors)
    file = io.BytesIO()
    np.save(file, np.array(embedded, np.float32), allow_pickle=False)
    return file.getvalue()


def _as_json(
    model: Model, named: Sequence[tuple[str, np.typing.NDArray[np.float32] | Problem]], request: Request
) -> Response:
    items = [_item(name, one, request) for name, one in named]
    return as_response(EmbeddingsAnswer(model=model.id, size=model.embedding_size, items=items))


def _item(name: str, one: np.typing.NDArray[np.float32] | Problem, request: Request) -> EmbeddedImage:
    if isinstance(one, Problem):
        return EmbeddedImage(filename=name, problem=one.answer(instance=request.url.path))
    return EmbeddedImage(filename=name, embedding=one.tolist())


def _find_model(database: Database, key: str) -> Model:
    with database.read() as session:
        return find(session, Model, key)


def _field(form: Form, name: str) -> str:
    """The form's only text field."""
    for other, _ in form.texts:
        if other != name:
            raise invalid_request(f"/{other}", "unexpected", f"{other!r} is unknown; the fields are {name} and image")
    values = form.values(name)
    if len(values) != 1:
        raise invalid_request(f"/{name}", "missing" if not values else "repeated", f"{name} is given once")
    return values[0]


def _admit(names: Sequence[str], limit: int, name: str, number: int) -> None:
    if name not in names:
        raise invalid_request(f"/{name}", "unexpected", f"{name!r} is a file; files are called {' or '.join(names)}")
    if number > limit:
        if names == _FILES:
            raise invalid_request(f"/{name}", "repeated", f"{name} is given once")
        raise too_many_files("REID_MAX_IMAGES_PER_REQUEST", limit)


def _refuse_json(request: Request) -> None:
    if is_json(request):
        raise Problem("unsupported-media", "The body is JSON.", hint="Send multipart/form-data with files.")
