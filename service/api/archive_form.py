"""A form with an archive in it, written to its place on disk as it arrives: neither memory nor a temporary folder
holds it."""

from __future__ import annotations

from typing import IO

from fastapi import Request

from service.api.forms import Form, read_form
from service.errors import invalid_request
from service.settings import Settings
from service.storage import ensure_free_space

ARCHIVE = "archive"


async def receive_archive(request: Request, file: IO[bytes], settings: Settings) -> dict[str, str]:
    """The form's text fields, once all of its file `archive` has been written to `file`.

    Raises:
        Problem: as `read_form`; 422 without exactly one archive, 507 when the disk gets too full.
    """

    def ensure_room(needed_bytes: int) -> None:
        ensure_free_space(settings.uploads_dir, needed_bytes=needed_bytes, min_free_bytes=settings.min_free_bytes)

    announced = request.headers.get("content-length", "")
    ensure_room(int(announced) if announced.isdecimal() else 0)
    form = await read_form(request, file, _admit_archive, before_write=ensure_room)
    file.flush()
    return _fields(form)


def _admit_archive(name: str, number: int) -> None:
    if name != ARCHIVE:
        raise invalid_request(f"/{name}", "unknown", f"the only file of this form is {ARCHIVE!r}")
    if number > 1:
        raise invalid_request(f"/{ARCHIVE}", "repeated", "exactly one file is needed")


def _fields(form: Form) -> dict[str, str]:
    if not form.files:
        raise invalid_request(f"/{ARCHIVE}", "missing", "exactly one file is needed")
    fields = dict(form.texts)
    for name in fields:
        if len(form.values(name)) > 1:
            raise invalid_request(f"/{name}", "repeated", "each field is given once")
    return fields
