"""Refuses requests that may not be made, by their route and their key alone: no byte of the body has been read yet."""

from __future__ import annotations

from typing import cast

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.operations import find_operation
from service.api.rates import Rates
from service.auth import Scope as KeyScope
from service.auth import demand, sent_key


class Permission:
    """ASGI middleware that sets `request.state.operation` and refuses callers without its scope, or too many requests.

    `require` declares the scope per route, and judges once more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            operation = scope["state"]["operation"] = find_operation(scope["app"].state.operations, scope)
            if operation.scope is not None:
                _judge(scope, operation.scope)
        await self.app(scope, receive, send)


def _judge(scope: Scope, needed: KeyScope) -> None:
    caller, rates = scope["state"]["caller"], cast(Rates, scope["app"].state.rates)
    key = sent_key(Headers(scope=scope))
    if caller is None and key is not None:
        rates.count_wrong_key((scope.get("client") or [""])[0], key)
    demand(caller, needed)
    if caller.key_id is not None:
        rates.count_request(caller.key_id)
