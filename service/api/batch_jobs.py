"""Searches by more queries than one request answers: started with a file of them, and their results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from service.api.contents import check, is_json
from service.api.dependencies import DatabaseDep, SettingsDep, accepted, prefix_of, require
from service.api.files import FILE_RESPONSES, answer_file
from service.api.forms import Form, read_form
from service.api.openapi import problems
from service.auth import Caller, demand
from service.db import audit
from service.db.ids import new_id
from service.db.session import Database
from service.errors import Problem, invalid_request
from service.jobs import enqueue, lifecycle
from service.jobs.receivers import check_url
from service.jobs.schemas import JobAnswer
from service.jobs.search_batch_schemas import UploadedBatch
from service.jobs.searched import resolve_batch, result_file
from service.jobs.uploaded_queries import uploaded_path
from service.settings import Settings
from service.storage import ensure_free_space, held_file

router = APIRouter()

Searcher = Annotated[Caller, require("search")]
Writer = Annotated[Caller, require("write")]

_FILE = "queries"
_LISTS = ("camera", "exclude_camera")
_TYPES = {".jsonl": "application/x-ndjson", ".parquet": "application/vnd.apache.parquet"}


def _form_schema() -> dict[str, Any]:
    schema = UploadedBatch.model_json_schema()
    schema.pop("$defs", None)
    schema["properties"]["webhook"] = {"type": "string", "contentMediaType": "application/json"}
    file = {"type": "string", "format": "binary", "description": "JSON lines or Parquet"}
    return schema | {"required": ["gallery", _FILE], "properties": {_FILE: file} | schema["properties"]}


@router.post(
    "/search/batch/jobs",
    status_code=202,
    tags=["search"],
    responses=problems(404, 409, 413, 415, 507),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form_schema()}}}},
)
async def search_by_file(
    request: Request, response: Response, database: DatabaseDep, settings: SettingsDep, caller: Writer
) -> JobAnswer:
    """Search a gallery by a file of queries (`queries`), as a job of kind `search_batch`.

    Each row of the file has an `embedding` or an `image_id`, and perhaps an `id` of your own, which the results name.
    """
    if is_json(request):
        hint = "Send multipart/form-data; by a split or a gallery is searched with POST /jobs."
        raise Problem("unsupported-media", "Queries come as a form with their file.", hint=hint)
    demand(caller, "search")
    job_id = new_id("job")
    path = uploaded_path(settings, job_id)
    with held_file(path) as file:  # until the job has a row: a sweep takes it for lost only once this process is
        body = check(UploadedBatch, await _receive(request, file, settings))
        if body.webhook is not None:
            check_url(settings, body.webhook.url)
        await run_in_threadpool(_check_file, path)
        answer = await run_in_threadpool(_enqueue, database, settings, caller, job_id, body, prefix_of(request))
    await run_in_threadpool(request.app.state.send, job_id, "search_batch")
    return accepted(response, answer, answer.links.self)


@router.get("/jobs/{job_id}/files/{name}", tags=["jobs"], response_class=FileResponse, responses=FILE_RESPONSES)
def read_job_file(
    job_id: str, name: str, request: Request, database: DatabaseDep, settings: SettingsDep, _caller: Searcher
) -> Response:
    """One of the files in the job's `result.files`, whole or in parts."""
    with database.read() as session:
        path, sha256 = result_file(settings, lifecycle.find_job(session, job_id), name)
    return answer_file(request, path, _TYPES[path.suffix], sha256=sha256, filename=name)


def _check_file(path: Path) -> None:
    from service.jobs.query_files import check_file  # brings PyArrow, which a start does without

    check_file(path)


def _enqueue(
    database: Database, settings: Settings, caller: Caller, job_id: str, body: UploadedBatch, prefix: str
) -> JobAnswer:
    with database.write() as session:
        spec = resolve_batch(session, settings, body, body.gallery, {"file": job_id})
        webhook = body.webhook.values if body.webhook else (None, None)
        job = enqueue(session, "search_batch", spec, webhook=webhook, job_id=job_id)
        audit.record(
            session, key_id=caller.key_id, action="job.create", target=job.id, kind=job.kind, gallery=spec["gallery"]
        )
    return JobAnswer.of(job, prefix)


async def _receive(request: Request, file: BinaryIO, settings: Settings) -> dict[str, Any]:
    """The form's fields, once all of its file has been written to `file`."""

    def ensure_room(needed_bytes: int) -> None:
        ensure_free_space(settings.uploads_dir, needed_bytes=needed_bytes, min_free_bytes=settings.min_free_bytes)

    form = await read_form(request, file, _admit_file, before_write=ensure_room)
    file.flush()
    if not form.files:
        raise invalid_request(f"/{_FILE}", "missing", f"there are no queries; send them as a file called `{_FILE}`")
    return {name: _value(form, name) for name in form.names if name != _FILE}


def _value(form: Form, name: str) -> Any:
    """All values of a field that is a list, else the only one; two of them stay a list, which no other field takes."""
    values = form.values(name)
    return values if name in _LISTS or len(values) > 1 else values[0]


def _admit_file(name: str, number: int) -> None:
    if name != _FILE:
        raise invalid_request(f"/{name}", "unexpected", f"{name!r} is a file; the only one of this form is {_FILE!r}")
    if number > 1:
        raise invalid_request(f"/{_FILE}", "repeated", "exactly one file is needed")
