"""Authentication: finds the caller of a request by its API key, before its body is read."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth import EVERYONE, Caller, sent_key, unauthenticated
from service.keys.lifecycle import authenticate
from service.settings import is_loopback


class Authentication:
    """ASGI middleware that sets `request.state.caller`, None without a valid key; `require` judges it per route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["caller"] = await _find_caller(scope)
        await self.app(scope, receive, send)


async def _find_caller(scope: Scope) -> Caller | None:
    state, headers = scope["app"].state, Headers(scope=scope)
    if state.settings.auth == "off":
        _refuse_strangers(headers)
        return EVERYONE
    key = sent_key(headers)
    caller = await run_in_threadpool(authenticate, state.database, key) if key else None
    if caller is not None and caller.key_id is not None:
        state.key_uses.note(caller.key_id)
    return caller


def is_local(scope: Scope) -> bool:
    """True for a request from this machine that is no page's of another site."""
    client = scope.get("client")
    return client is not None and is_loopback(client[0]) and not _is_strange(Headers(scope=scope))


def _refuse_strangers(headers: Headers) -> None:
    if _is_strange(headers):
        raise unauthenticated(
            f"REID_AUTH=off serves this machine only, as localhost or 127.0.0.1 and not from pages of other sites; "
            f"the request was for {_host(headers)!r}."
        )


def _is_strange(headers: Headers) -> bool:
    """A page from elsewhere in the user's browser could call us; browsers say where a call comes from."""
    return not is_loopback(_host(headers)) or headers.get("sec-fetch-site") == "cross-site"


def _host(headers: Headers) -> str:
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""
