"""Files as answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from service.api.openapi import Responses, problems
from service.errors import Problem

_MEDIA_TYPES = {f".{suffix}": "image/jpeg" for suffix in ("jpg", "jpeg", "jpe", "jfif")} | {
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".ppm": "image/x-portable-pixmap",
    ".pgm": "image/x-portable-graymap",
    ".pnm": "image/x-portable-anymap",
}

FILE_RESPONSES: Responses = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The part that `Range` asks for."},
    304: {"description": "The client has it, as `If-None-Match` says."},
    **problems(416),
}
"""The declared answers of routes that give a file."""

IMAGE_RESPONSES: Responses = FILE_RESPONSES | {
    200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}

PNG_RESPONSES: Responses = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}
"""The declared answers of routes that give a drawing."""

DRAWING_RESPONSES: Responses = PNG_RESPONSES | {304: FILE_RESPONSES[304]}
"""The declared answers of routes that give a drawing once."""

CHART_RESPONSES: Responses = DRAWING_RESPONSES | {
    200: {
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in ("image/png", "image/svg+xml")
        }
    },
}
"""The declared answers of routes that give a chart."""

# `no-cache`: asked for again each time, so that an erased image is not shown from a cache.
CACHE_HEADERS = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}


def answer_file(
    request: Request, path: Path, media_type: str, *, sha256: str | None = None, filename: str | None = None
) -> Response:
    """The file, in parts where `Range` asks for some, or 304 where `If-None-Match` says that the client has it.

    A file whose `sha256` is not known is told apart by its time and size. With `filename` it is to be saved, not shown.
    A `Range` that the file does not have is answered with 416.
    """
    headers = CACHE_HEADERS | ({"ETag": f'"{sha256}"'} if sha256 else {})
    file = _File(path, headers=headers, media_type=media_type, filename=filename, stat_result=path.stat())
    if file.headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers | {"ETag": file.headers["etag"]})
    return file


def answer_drawing(request: Request, drawn: bytes, format: Literal["png", "svg"]) -> Response:
    """The drawing, or 304 where `If-None-Match` says that the client has it; an SVG is kept from running anything."""
    headers = CACHE_HEADERS | {"ETag": f'"{hashlib.sha256(drawn).hexdigest()}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if format == "svg":
        headers |= {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
        return Response(drawn, media_type="image/svg+xml", headers=headers)
    return Response(drawn, media_type="image/png", headers=headers)


def media_type(path: Path) -> str:
    """`image/jpeg` and the like, by the file's name."""
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


class _File(FileResponse):
    """Starlette's, but a wrong `Range` is a problem as every other error is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_if_good(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                raise _wrong_range(Headers(scope=scope)["range"], self.headers["content-length"])
            await send(message)

        await super().__call__(scope, receive, send_if_good)


def _wrong_range(asked: str, size: str) -> Problem:
    return Problem(
        "range-not-satisfiable",
        f"{asked!r} names no part of this file, which has {size} bytes.",
        hint="Leave `Range` out for the whole file.",
        headers={"Content-Range": f"bytes */{size}"},
    )
