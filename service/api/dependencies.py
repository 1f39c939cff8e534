"""The dependencies of routes, named by type: the database, the settings, a caller with a scope, a page; and links."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_origin

from fastapi import Depends, Request, Response, Security, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.security import APIKeyHeader, HTTPBearer, SecurityScopes
from pydantic import BaseModel
from starlette.types import Scope as AsgiScope

from reid_core.errors import Fault
from service.api.pagination import Page
from service.auth import Caller, Scope, demand
from service.db.session import Database
from service.errors import Problem
from service.settings import Settings

if TYPE_CHECKING:  # the API answers before PyTorch is loaded
    from service.search.engine import Engine

Accepted = TypeVar("Accepted")

# They only describe the two ways of sending a key to OpenAPI; `Authentication` has read them already.
_BEARER = HTTPBearer(scheme_name="bearer", auto_error=False, description="An API key as bearer token.")
_HEADER = APIKeyHeader(name="X-API-Key", scheme_name="header", auto_error=False, description="An API key.")


def require(scope: Scope) -> Any:
    """The dependency that lets only callers with `scope` in, and tells OpenAPI so; its value is the Caller.

    `Annotated[Caller, require("write")]` as a parameter, or `dependencies=[require("read")]` on the route.
    """
    return Security(_authorise, scopes=[scope])


def accepted(response: Response, answer: Accepted, location: str) -> Accepted:
    """The answer with status 202, of work that a job does; `location` is where its outcome will be found."""
    response.status_code = 202
    response.headers.update(accepted_headers(location))
    return answer


def accepted_headers(location: str) -> dict[str, str]:
    """The headers of an answer with status 202."""
    return {"Location": location, "Retry-After": "1"}


def as_response(answer: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer of a route that has another one, too."""
    return Response(answer.model_dump_json(), status, headers, media_type="application/json")


def loaded_engine(request: Request) -> Engine:
    """The search engine, for routes in threads of their own: it waits for PyTorch while that is being loaded."""
    engine: Future[Engine] = request.app.state.engine
    return engine.result()


def prefix_of(request: Request) -> str:
    """The prefix of links in answers: REID_ROOT_PATH, and `/v1` where the request came that way."""
    root: str = request.scope.get("root_path", "")
    return root + ("/v1" if route_path(request.scope).startswith("/v1/") else "")


def route_path(scope: AsgiScope) -> str:
    """The address that was asked for, without REID_ROOT_PATH."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def refuse_unknown_query(request: Request) -> None:
    """A dependency of every route: a misspelt `?dryrun=true`, or one filter of two, must not be ignored."""
    fields = get_flat_params(request.scope["route"].dependant)
    # The fields of a model that takes the whole query are not of type Query themselves.
    elsewhere = (params.Path, params.Header, params.Cookie)
    known = {field.alias: field.field_info for field in fields if not isinstance(field.field_info, elsewhere)}
    faults = []
    for name in dict.fromkeys(request.query_params):
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            faults.append(Fault(f"/query/{name}", "unknown", f"unknown parameter; known are: {listed}"))
        elif len(request.query_params.getlist(name)) > 1 and get_origin(known[name].annotation) is not list:
            faults.append(Fault(f"/query/{name}", "repeated", "it takes one value and is given several"))
    if faults:
        detail = f"{faults[0].pointer}: {faults[0].message}."
        raise Problem("invalid-request", detail, errors=faults)


async def _authorise(
    request: Request,
    needed: SecurityScopes,
    _bearer: Annotated[Any, Security(_BEARER)],
    _header: Annotated[Any, Security(_HEADER)],
) -> Caller:
    (scope,) = needed.scopes
    return demand(request.state.caller, cast("Scope", scope))


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


DatabaseDep = Annotated[Database, Depends(_database)]
SettingsDep = Annotated[Settings, Depends(_settings)]
PageDep = Annotated[Page, Depends()]
