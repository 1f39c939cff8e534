"""No body larger than its limit is read, none that comes too slowly, and of all together no more than memory is for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.forms import SPOOLED_BYTES
from service.budget import Budget
from service.errors import Problem
from service.settings import Settings


class BodyLimit:
    """ASGI middleware that ends a request with 413 at the first byte too many, whether its length was announced or not,
    with 408 where its body keeps it waiting, and with 503 while others' bodies fill REID_BODY_MEMORY_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state, headers = scope["app"].state, Headers(scope=scope)
        name, limit = _limit_of(scope, headers)
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _too_large(name, limit)
        body = _Body(receive, state.settings, state.body_memory, name, limit)
        try:
            await self.app(scope, body.receive, send)
        finally:
            body.memory.give_back(body.held)


@dataclass(slots=True)
class _Body:
    """A request's body as it arrives. Of one beyond what memory is for (forms with files), the rest lies on disk."""

    onward: Receive
    settings: Settings
    memory: Budget
    setting: str
    limit: int
    received: int = 0
    held: int = 0
    waited: float = 0.0
    complete: bool = False

    async def receive(self) -> Message:
        if self.complete:
            return await self.onward()
        try:
            message = await self._next()
            self._count(len(message.get("body", b"")))
        except Problem as problem:
            # FastAPI turns any other exception of a body's reader into 400.
            raise HTTPException(problem.status, detail=problem) from problem
        self.complete = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        """The next piece. Only waiting for the client counts, not what we do between two pieces."""
        pace = self.settings.body_bytes_per_second
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.body_seconds + self.received / pace - self.waited):
                message = await self.onward()
        except TimeoutError:
            raise _too_slow(self.settings) from None
        self.waited += time.monotonic() - started
        return message

    def _count(self, size: int) -> None:
        self.received += size
        if self.received > self.limit:
            raise _too_large(self.setting, self.limit)
        more = min(self.received, self.settings.max_json_bytes + SPOOLED_BYTES) - self.held
        if not self.memory.take(more, seconds=0):
            raise _no_memory(self.settings)
        self.held += more


def _limit_of(scope: Scope, headers: Headers) -> tuple[str, int]:
    settings = scope["app"].state.settings
    is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
    if is_form and scope["state"]["operation"].takes_files:
        return "REID_MAX_UPLOAD_BYTES", settings.max_upload_bytes
    return "REID_MAX_JSON_BYTES", settings.max_json_bytes


def _too_large(name: str, limit: int) -> Problem:
    return Problem(
        "too-large", f"The body is larger than {name} = {limit:,} bytes.", hint=f"Send less, or raise {name}."
    )


def _too_slow(settings: Settings) -> Problem:
    return Problem(
        "too-slow",
        f"The body kept the service waiting for more than REID_BODY_SECONDS = {settings.body_seconds:g} "
        f"and came more slowly than {settings.body_bytes_per_second:,} bytes a second.",
        headers={"Connection": "close"},
    )


def _no_memory(settings: Settings) -> Problem:
    return Problem(
        "unavailable",
        f"Bodies that arrive just now fill REID_BODY_MEMORY_BYTES = {settings.body_memory_bytes:,}.",
        hint="Try again.",
        headers={"Retry-After": "1"},
    )
