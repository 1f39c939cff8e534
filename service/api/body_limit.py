"""No body larger than its limit is read: forms with files have one, all others another."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import unauthenticated
from service.errors import Problem


class BodyLimit:
    """ASGI middleware that ends a request with 413 at the first byte too many, whether its length was announced or not.

    Only who has a key may send files; others get 401 before much of them is read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name, limit = _limit_of(scope, headers)
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _refusal(scope, name, limit)
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                problem = _refusal(scope, name, limit)
                # FastAPI turns any other exception of a body's reader into 400.
                raise HTTPException(problem.status, detail=problem)
            return message

        await self.app(scope, limited, send)


def _limit_of(scope: Scope, headers: Headers) -> tuple[str, int]:
    settings = scope["app"].state.settings
    if headers.get("content-type", "").lower().startswith("multipart/form-data") and scope["state"]["caller"]:
        return "REID_MAX_UPLOAD_BYTES", settings.max_upload_bytes
    return "REID_MAX_JSON_BYTES", settings.max_json_bytes


def _refusal(scope: Scope, name: str, limit: int) -> Problem:
    if scope["state"]["caller"] is None:
        return unauthenticated("this needs an API key, and the request carries none that is valid")
    return Problem("too-large", f"the body is larger than {name} = {limit:,} bytes", hint=f"send less, or raise {name}")
