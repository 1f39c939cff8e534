"""A form with an archive in it, written to its place on disk as it arrives: neither memory nor a temporary folder
holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool

from reid_core.errors import Fault
from service.errors import Problem
from service.settings import Settings
from service.storage import ensure_free_space

ARCHIVE = "archive"

_PIECE_BYTES = 1024**2
_MAX_FIELD_BYTES = 10_000
_MAX_FIELDS = 20


async def receive_archive(request: Request, file: IO[bytes], settings: Settings) -> dict[str, str]:
    """The form's text fields, once all of its file `archive` has been written to `file`.

    Raises:
        Problem: 400 for what is no complete form, 422 without exactly one archive, 507 when the disk gets too full.
    """
    announced = request.headers.get("content-length", "")
    _ensure_room(settings, int(announced) if announced.isdecimal() else 0)
    form = _Form(file)
    parser = _parser(form, request.headers["content-type"])
    async for piece in _in_large_pieces(request.stream()):
        await run_in_threadpool(_take, parser, piece, settings)
    _check_complete(form)
    file.flush()
    return form.fields


@dataclass(slots=True)
class _Form:
    """Collects what the parser calls out; of the file parts, `archive` goes to `file`."""

    file: IO[bytes]
    fields: dict[str, str] = field(default_factory=dict)
    archives: int = 0
    complete: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _name: str = ""
    _value: bytearray | None = None

    def on_part_begin(self) -> None:
        self._disposition, self._value = b"", None

    def on_header_begin(self) -> None:
        self._header = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _malformed("a part has no name")
        self._name = _text(options[b"name"])
        if b"filename" not in options:
            self._value = bytearray()
        elif self._name == ARCHIVE:
            self.archives += 1
        else:
            raise _impossible(self._name, "unknown", f"the only file of this form is {ARCHIVE!r}")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self.file.write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            raise _impossible(self._name, "too-long", f"a field has at most {_MAX_FIELD_BYTES:,} bytes; is it a file?")

    def on_part_end(self) -> None:
        if self._value is None:
            return
        if self._name in self.fields or len(self.fields) == _MAX_FIELDS:
            raise _impossible(self._name, "repeated", "each field is given once")
        self.fields[self._name] = _text(bytes(self._value))

    def on_end(self) -> None:
        self.complete = True


def _parser(form: _Form, content_type: str) -> MultipartParser:
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise _malformed("its Content-Type names no boundary")
    try:
        return MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.on_part_begin,
                "on_header_begin": form.on_header_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
    except FormParserError as error:  # a boundary that is longer than a parser takes
        raise _malformed(str(error)) from error


async def _in_large_pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer pieces, since each is written by another thread."""
    held = bytearray()
    async for piece in stream:
        held += piece
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _take(parser: MultipartParser, piece: bytes, settings: Settings) -> None:
    _ensure_room(settings, len(piece))
    try:
        parser.write(piece)
    except FormParserError as error:
        raise _malformed(str(error)) from error


def _ensure_room(settings: Settings, needed_bytes: int) -> None:
    ensure_free_space(settings.uploads_dir, needed_bytes=needed_bytes, min_free_bytes=settings.min_free_bytes)


def _check_complete(form: _Form) -> None:
    if not form.complete:
        raise _malformed("it ends before its last boundary")
    if form.archives != 1:
        raise _impossible(ARCHIVE, "missing" if not form.archives else "repeated", "exactly one file is needed")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed("a field is not UTF-8") from error


def _malformed(reason: str) -> Problem:
    return Problem("malformed-request", f"the body is no multipart form: {reason}")


def _impossible(name: str, code: str, message: str) -> Problem:
    return Problem("invalid-request", f"{name}: {message}", errors=[Fault(f"/{name}", code, message)])
