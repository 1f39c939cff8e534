"""The outermost layer of every request: an id, a line in the log, its figures, an answer to unforeseen errors."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.error_handlers import answer

log = structlog.get_logger(__name__)

HEADER = "X-Request-ID"
_PROBES = ("/healthz/live", "/healthz/ready", "/metrics")
"""Asked every few seconds, for ever: logged only when they fail."""

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestContext:
    """ASGI middleware, the outermost; a sent `X-Request-ID` is taken over if it is harmless."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _set_root_path(scope)
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if status:  # half an answer is out; only breaking the connection tells the client
                raise
            await answer(error, scope)(scope, receive, send_with_id)
        finally:
            _note(scope, status, time.perf_counter() - started)


def _set_root_path(scope: Scope) -> None:
    """Some proxies take REID_ROOT_PATH off an address and others leave it; ASGI's `path` has it."""
    root = scope["app"].state.settings.root_path
    if root is not None:
        scope["root_path"] = root
        if not scope["path"].startswith(f"{root}/"):
            scope["path"] = root + scope["path"]


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get(HEADER, "")
    return sent if _ACCEPTED_ID.fullmatch(sent) else uuid.uuid4().hex


def _note(scope: Scope, status: int, seconds: float) -> None:
    # The route's path with its names in braces, without the query: both may hold an identity, which no log may keep.
    path = str(getattr(scope.get("route"), "path", "unmatched"))
    if status >= 400 or path.removeprefix("/v1") not in _PROBES:
        log.info("request", method=scope["method"], path=path, status=status, milliseconds=round(1000 * seconds, 1))
    scope["app"].state.metrics.count(scope["method"], path, status, seconds)
