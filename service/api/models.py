"""Models over the API: import, look, rename, download, delete."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.api.contents import is_json
from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, prefix_of, require
from service.api.files import FILE_RESPONSES, answer_file
from service.api.model_form import IMPORT_BODY, receive_model
from service.api.openapi import problems
from service.api.pagination import filter_equal, list_page
from service.auth import Caller
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.tables import Model
from service.errors import Problem
from service.evaluations.catalog import evaluations_of
from service.models import importing
from service.models.bundle import write_bundle
from service.models.card import CardAnswer, make_card, write_markdown
from service.models.importing import import_folder
from service.models.lifecycle import check_name_is_free, delete_model, model_file, rename_model
from service.models.schemas import ModelAnswer, ModelChange
from service.schemas import Listing
from service.settings import Settings
from service.storage import ensure_free_space

router = APIRouter(prefix="/models", tags=["models"])

_PIECE_BYTES = 256 * 1024

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]


@router.get("")
def list_models(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    page: PageDep,
    _caller: Reader,
    method: str | None = None,
) -> Listing[ModelAnswer]:
    """Models, newest first."""
    wanted, prefix = filter_equal(select(Model), (Model.method, method)), prefix_of(request)
    with database.read() as session:
        return list_page(
            session,
            wanted,
            Model.id,
            page,
            answer_of=lambda model: _answer(session, model, settings, prefix),
            newest_first=True,
        )


@router.post("", status_code=201, openapi_extra={"requestBody": IMPORT_BODY})
async def import_model(
    request: Request, response: Response, database: DatabaseDep, settings: SettingsDep, caller: Writer
) -> ModelAnswer:
    """Take in a network that was trained elsewhere: weights of a known method, or an ONNX file with its manifest."""
    if is_json(request):
        raise Problem("unsupported-media", "A model comes as a form with its file.", hint="Send multipart/form-data.")
    model_id = new_id("mdl")
    with import_folder(settings, model_id) as folder:
        upload = await receive_model(request, folder, settings)
        model = await run_in_threadpool(
            importing.import_model, database, settings, model_id, folder, upload, key_id=caller.key_id
        )
    answer = ModelAnswer.of(model, [], settings, prefix_of(request))
    response.headers["Location"] = answer.links.self
    return answer


@router.get("/{model_id}")
def read_model(
    model_id: str, request: Request, database: DatabaseDep, settings: SettingsDep, _caller: Reader
) -> ModelAnswer:
    """One model, by id or name: what it was made from and what it reached."""
    with database.read() as session:
        return _answer(session, find(session, Model, model_id), settings, prefix_of(request))


@router.patch("/{model_id}", responses=problems(409))
def change_model(
    model_id: str,
    body: ModelChange,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
) -> ModelAnswer:
    """Give a model another name."""
    with database.write() as session:
        model = find(session, Model, model_id)
        if body.name != model.name:
            check_name_is_free(session, body.name)
            rename_model(session, model.id, body.name)
            audit.record(session, key_id=caller.key_id, action="model.rename", target=model.id)
        return _answer(session, model, settings, prefix_of(request))


@router.delete("/{model_id}", status_code=204, responses=problems(409))
def remove_model(model_id: str, database: DatabaseDep, settings: SettingsDep, caller: Writer) -> None:
    """Delete a model with its files and evaluations; refused while a gallery or a job uses it."""
    delete_model(database, settings, model_id, key_id=caller.key_id)


@router.get(
    "/{model_id}/card",
    response_model=CardAnswer,
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}},
)
def read_card(
    model_id: str,
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    _caller: Reader,
    format: Literal["json", "markdown"] = "json",
) -> CardAnswer | PlainTextResponse:
    """The model's card: what it is, what it was made from, what it reached, and its limits."""
    with database.read() as session:
        model = find(session, Model, model_id)
        card = make_card(model, evaluations_of(session, model.id), settings, prefix_of(request))
    return card if format == "json" else PlainTextResponse(write_markdown(card), media_type="text/markdown")


@router.get(
    "/{model_id}/bundle",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
def read_bundle(model_id: str, database: DatabaseDep, settings: SettingsDep, _caller: Reader) -> StreamingResponse:
    """The model in one file, which POST /models takes in anywhere."""
    with database.read() as session:
        model = find(session, Model, model_id)
        card = write_markdown(make_card(model, evaluations_of(session, model.id), settings))
    size = sum(known["bytes"] for known in model.files.values())
    ensure_free_space(settings.home, needed_bytes=size, min_free_bytes=settings.min_free_bytes)
    file = tempfile.TemporaryFile(dir=settings.home)  # noqa: SIM115  `_pieces` closes it; it has no name, and goes then
    try:
        write_bundle(model, card, settings, file)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Length": str(file.tell()), "Content-Disposition": f'attachment; filename="{model.id}.zip"'}
    file.seek(0)
    return StreamingResponse(_pieces(file), media_type="application/zip", headers=headers)


@router.get(
    "/{model_id}/files/{name}",
    response_class=FileResponse,
    responses=FILE_RESPONSES,
)
def read_model_file(
    model_id: str, name: str, request: Request, database: DatabaseDep, settings: SettingsDep, _caller: Reader
) -> Response:
    """One of the model's files, whole or in parts."""
    with database.read() as session:
        path, sha256 = model_file(session, settings, model_id, name)
    kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
    return answer_file(request, path, kind, sha256=sha256, filename=name)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _answer(session: Session, model: Model, settings: Settings, prefix: str) -> ModelAnswer:
    return ModelAnswer.of(model, evaluations_of(session, model.id), settings, prefix)
