"""Thumbnails of images, made when they are asked for: nothing of them is kept, so nothing of them has to be erased."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

from fastapi import Query, Request, Response
from PIL import Image

from service.api.files import CACHE_HEADERS, answer_file, media_type
from service.decoding import Decoder
from service.errors import invalid_request
from service.settings import Settings

LEAST_WIDTH = 16

Width = Annotated[
    int | None,
    Query(
        ge=LEAST_WIDTH,
        description="pixels of a thumbnail, a JPEG; REID_MAX_THUMBNAIL_WIDTH at most. Left out: the image itself.",
    ),
]

_QUALITY = 85


def answer_image(
    request: Request, path: Path, width: int | None, *, settings: Settings, sha256: str | None = None
) -> Response:
    """The image's file, or a thumbnail of that width: upright, its aspect kept, never larger than the image.

    Raises 422 for a width beyond the setting, and for thumbnails as `Decoder.opened`.
    """
    if width is None:
        return answer_file(request, path, media_type(path), sha256=sha256)
    if width > settings.max_thumbnail_width:
        message = f"width is {width}, at most {settings.max_thumbnail_width} are allowed"
        hint = "Ask for less, leave `width` out for the image itself, or raise REID_MAX_THUMBNAIL_WIDTH."
        raise invalid_request("/query/width", "too-large", message, hint=hint)
    headers = CACHE_HEADERS | {"ETag": f'"{sha256 or _state_of(path)}-{width}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(_draw(request.app.state.decoder, path, width), media_type="image/jpeg", headers=headers)


def _draw(decoder: Decoder, path: Path, width: int) -> bytes:
    with decoder.opened(path, path.name) as decoded:
        image = decoded.image
        if width < image.width:
            height = max(1, round(image.height * width / image.width))
            image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _state_of(path: Path) -> str:
    """Another text for every state of the file."""
    state = path.stat()
    return f"{state.st_mtime_ns:x}-{state.st_size:x}"
