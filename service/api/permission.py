"""Whether a request may be made, judged by its route and its key alone: no byte of its body has been read yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.links import route_path
from service.api.rates import Rates
from service.auth import Scope as KeyScope
from service.auth import demand, sent_key


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request asks for: the scope that it needs, None where it is open to all; whether it takes files."""

    scope: KeyScope | None
    takes_files: bool


NOTHING = Operation(None, takes_files=False)
"""What is asked for at an address that there is not."""


class Permission:
    """ASGI middleware that sets `request.state.operation` and refuses callers without its scope, or too many requests.

    `require` declares the scope per route, and judges once more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._routes: list[tuple[RouteContext, Operation]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            operation = scope["state"]["operation"] = self._find(scope)
            if operation.scope is not None:
                _judge(scope, operation.scope)
        await self.app(scope, receive, send)

    def _find(self, scope: Scope) -> Operation:
        if self._routes is None:
            self._routes = list(_routes(scope["app"]))
        path = route_path(scope)
        for route, operation in self._routes:
            if scope["method"] in (route.methods or ()) and route.path_regex.match(path):
                scope["route"] = route.original_route  # for the log, of requests that come no further
                return operation
        return NOTHING


def _judge(scope: Scope, needed: KeyScope) -> None:
    caller, rates = scope["state"]["caller"], cast(Rates, scope["app"].state.rates)
    key = sent_key(Headers(scope=scope))
    if caller is None and key is not None:
        rates.count_wrong_key((scope.get("client") or [""])[0], key)
    demand(caller, needed)
    if caller.key_id is not None:
        rates.count_request(caller.key_id)


def _routes(app: FastAPI) -> Iterator[tuple[RouteContext, Operation]]:
    """Every route in the order in which they are tried, with what it is for."""
    for route in iter_route_contexts(app.routes):
        if hasattr(route.original_route, "dependant"):
            scopes = list(_scopes(route.dependant))
            yield route, Operation(scopes[0] if scopes else None, takes_files=_takes_files(route))


def _scopes(dependant: Dependant) -> Iterator[Any]:
    """The scopes that a route's dependencies ask for; a test holds every route to one."""
    yield from dependant.own_oauth_scopes or ()
    for inner in dependant.dependencies:
        yield from _scopes(inner)


def _takes_files(route: RouteContext) -> bool:
    body = (route.openapi_extra or {}).get("requestBody", {})
    return "multipart/form-data" in body.get("content", {})
