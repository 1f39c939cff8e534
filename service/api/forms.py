"""Forms with files, read as they arrive: text in memory, the bytes of all files in one file, each within its limit."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool

from service.errors import Problem, sentence
from service.settings import Settings

AdmitFile = Callable[[str, int], None]
"""Raises a Problem for a file under that name of a field, the form's file of that number from 1, to be refused."""

SPOOLED_BYTES = 1024**2
"""The bytes of a form's files that are held in memory; more go to a temporary file."""

_PIECE_BYTES = 1024**2
_MAX_HEADER_BYTES = 8192
"""The headers of one part: a name and a file's name, at the longest that file systems take."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form: the field that it came in, the name that it has, and where it begins and ends in the sink."""

    field: str
    filename: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Form:
    """The fields and files of a form, in its order; `sink` has the bytes of all files, one after the other."""

    texts: list[tuple[str, str]]
    files: list[FormFile]
    sink: IO[bytes]

    @property
    def names(self) -> list[str]:
        """The fields' names, once each."""
        return list(dict.fromkeys([name for name, _ in self.texts] + [file.field for file in self.files]))

    def values(self, name: str) -> list[str]:
        """The texts in that field."""
        return [text for field_name, text in self.texts if field_name == name]

    def open_files(self, name: str) -> list[tuple[str, BinaryIO]]:
        """The names and contents of the files in that field, to be read one after the other."""
        return [
            (file.filename, cast(BinaryIO, _Part(self.sink, file.start, file.end)))
            for file in self.files
            if file.field == name
        ]


@asynccontextmanager
async def open_form(request: Request, admit_file: AdmitFile) -> AsyncIterator[Form]:
    """The body's texts and files, which are gone at the end; raises as `read_form`."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOLED_BYTES) as sink:
        yield await read_form(request, cast("IO[bytes]", sink), admit_file)


async def read_form(
    request: Request, sink: IO[bytes], admit_file: AdmitFile, *, before_write: Callable[[int], None] | None = None
) -> Form:
    """The body, the bytes of its files written to `sink`; `before_write` is asked with the size of every piece of it.

    Raises:
        Problem: 400 for what is no complete form, 413 for more text or more fields than is allowed, and whatever
            `admit_file` and `before_write` raise.
    """
    reader = _Reader(sink, admit_file, request.app.state.settings)
    parser = _parser(reader, request.headers["content-type"])
    async for piece in _in_large_pieces(request.stream()):
        await run_in_threadpool(_take, parser, piece, before_write)
    if not reader.complete:
        raise _malformed("it ends before its last boundary")
    return Form(reader.texts, reader.files, sink)


def too_many_files(setting: str, limit: int) -> Problem:
    """The 413 problem of a form with more files than `setting` allows."""
    return _too_large(f"there are more than {setting} = {limit} files", setting)


@dataclass(slots=True)
class _Reader:
    """Collects what the parser calls out."""

    sink: IO[bytes]
    admit_file: AdmitFile
    settings: Settings
    texts: list[tuple[str, str]] = field(default_factory=list)
    files: list[FormFile] = field(default_factory=list)
    complete: bool = False
    _text_bytes: int = 0
    _header_bytes: int = 0
    _header: bytearray = field(default_factory=bytearray)
    _disposition: bytearray = field(default_factory=bytearray)
    _name: str = ""
    _filename: str | None = None
    _start: int = 0
    _value: bytearray = field(default_factory=bytearray)

    def on_part_begin(self) -> None:
        self._header_bytes, self._disposition, self._value = 0, bytearray(), bytearray()

    def on_header_begin(self) -> None:
        self._header = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(bytes(self._disposition))
        if b"name" not in options:
            raise _malformed("a part has no name")
        self._name = _text(options[b"name"])
        self._filename = _text(options[b"filename"]) if b"filename" in options else None
        if self._filename is not None:
            self.admit_file(self._name, len(self.files) + 1)
            self._start = self.sink.tell()
            return
        if len(self.texts) == self.settings.max_form_fields:
            setting = "REID_MAX_FORM_FIELDS"
            raise _too_large(f"there are more than {setting} = {self.settings.max_form_fields:,} fields", setting)
        self._count_text(len(self._name))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is not None:
            self.sink.write(data[start:end])
            return
        self._count_text(end - start)
        self._value += data[start:end]

    def on_part_end(self) -> None:
        if self._filename is None:
            self.texts.append((self._name, _text(bytes(self._value))))
        else:
            self.files.append(FormFile(self._name, self._filename, self._start, self.sink.tell()))

    def on_end(self) -> None:
        self.complete = True

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise Problem("too-large", f"A part of the form has more than {_MAX_HEADER_BYTES:,} bytes of headers.")

    def _count_text(self, size: int) -> None:
        self._text_bytes += size
        limit = self.settings.max_json_bytes
        if self._text_bytes > limit:
            raise _too_large(f"the fields have more than REID_MAX_JSON_BYTES = {limit:,} bytes", "REID_MAX_JSON_BYTES")


class _Part(io.RawIOBase):
    """The bytes of `sink` from `start` to `end` as a file."""

    def __init__(self, sink: IO[bytes], start: int, end: int) -> None:
        self._sink, self._start, self._size, self._position = sink, start, end - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), self._size)
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int | None = -1) -> bytes:
        left = self._size - self._position
        self._sink.seek(self._start + self._position)
        content = self._sink.read(left if size is None or size < 0 else min(size, left))
        self._position += len(content)
        return content


def _parser(reader: _Reader, content_type: str) -> MultipartParser:
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise _malformed("its Content-Type names no boundary")
    try:
        return MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": reader.on_part_begin,
                "on_header_begin": reader.on_header_begin,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_headers_finished": reader.on_headers_finished,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_end": reader.on_end,
            },
            # The reader counts a part's headers together, so these are never reached.
            max_header_count=2 * _PIECE_BYTES,
            max_header_size=2 * _PIECE_BYTES,
        )
    except FormParserError as error:  # a boundary that is longer than a parser takes
        raise _malformed(str(error)) from error


async def _in_large_pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Joins the pieces of a stream into fewer and larger ones, since each is written by another thread."""
    held = bytearray()
    async for piece in stream:
        held += piece
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _take(parser: MultipartParser, piece: bytes, before_write: Callable[[int], None] | None) -> None:
    if before_write is not None:
        before_write(len(piece))
    try:
        parser.write(piece)
    except FormParserError as error:
        raise _malformed(str(error)) from error


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed("a field is not UTF-8") from error


def _malformed(reason: str) -> Problem:
    return Problem("malformed-request", f"The body is no multipart form: {reason}.")


def _too_large(message: str, setting: str) -> Problem:
    return Problem("too-large", sentence(message), hint=f"Send it in several requests, or raise {setting}.")
