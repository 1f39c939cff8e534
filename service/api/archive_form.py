"""A form with an archive in it, written to its place on disk as it arrives: neither memory nor a temporary folder
holds it."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from reid_core.errors import Fault
from service.api.forms import Form, read_form
from service.errors import Problem
from service.settings import Settings
from service.storage import delete_file, ensure_free_space

ARCHIVE = "archive"


async def receive_archive(request: Request, target: Path, settings: Settings) -> dict[str, str]:
    """The form's text fields, once its file `archive` lies at `target`; on any error nothing lies there.

    Raises:
        Problem: as `read_form`; 422 without exactly one archive, 507 when the disk gets too full.
    """

    def ensure_room(needed_bytes: int) -> None:
        ensure_free_space(target.parent, needed_bytes=needed_bytes, min_free_bytes=settings.min_free_bytes)

    await run_in_threadpool(target.parent.mkdir, parents=True, exist_ok=True)
    announced = request.headers.get("content-length", "")
    ensure_room(int(announced) if announced.isdecimal() else 0)
    try:
        with target.open("wb") as file:
            form = await read_form(request, file, _admit_archive, before_write=ensure_room)
        return _fields(form)
    except BaseException:
        delete_file(target)
        raise


def _admit_archive(name: str, number: int) -> None:
    if name != ARCHIVE:
        raise _impossible(name, "unknown", f"the only file of this form is {ARCHIVE!r}")
    if number > 1:
        raise _impossible(ARCHIVE, "repeated", "exactly one file is needed")


def _fields(form: Form) -> dict[str, str]:
    if not form.files:
        raise _impossible(ARCHIVE, "missing", "exactly one file is needed")
    fields = dict(form.texts)
    for name in fields:
        if len(form.values(name)) > 1:
            raise _impossible(name, "repeated", "each field is given once")
    return fields


def _impossible(name: str, code: str, message: str) -> Problem:
    return Problem("invalid-request", f"{name}: {message}", errors=[Fault(f"/{name}", code, message)])
