"""The operations of an app: what each needs, found by a request's address alone, before any of its body is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.types import Scope

from service.api.dependencies import route_path
from service.auth import Scope as KeyScope


@dataclass(frozen=True, slots=True)
class Operation:
    """The operation that a request asks for: its scope, None where it is open to all, and whether it takes files."""

    scope: KeyScope | None
    takes_files: bool


NOTHING = Operation(None, takes_files=False)
"""The operation at an address that does not exist."""

Operations = tuple[tuple[RouteContext, Operation], ...]


def operations_of(app: FastAPI) -> Operations:
    """Every route in the order in which they are tried, with its operation."""
    return tuple(
        (route, _operation(route))
        for route in iter_route_contexts(app.routes)
        if hasattr(route.original_route, "dependant")
    )


def find_operation(operations: Operations, scope: Scope) -> Operation:
    """The operation that the request is for; its route is noted in `scope` for the log."""
    path = route_path(scope)
    for route, operation in operations:
        if scope["method"] in (route.methods or ()) and route.path_regex.match(path):
            scope["route"] = route.original_route  # of requests that come no further
            return operation
    return NOTHING


def methods_at(operations: Operations, scope: Scope) -> list[str]:
    """The methods that the request's address takes, for `Allow`."""
    path = route_path(scope)
    return sorted({method for route, _ in operations if route.path_regex.match(path) for method in route.methods or ()})


def _operation(route: RouteContext) -> Operation:
    scopes = list(_scopes(route.dependant))
    body = (route.openapi_extra or {}).get("requestBody", {})
    return Operation(scopes[0] if scopes else None, takes_files="multipart/form-data" in body.get("content", {}))


def _scopes(dependant: Dependant) -> Iterator[Any]:
    """The scopes that a route's dependencies ask for; a test holds every route to one."""
    yield from dependant.own_oauth_scopes or ()
    for inner in dependant.dependencies:
        yield from _scopes(inner)
