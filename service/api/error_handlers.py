"""Every exception becomes one problem answer (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from reid_core.errors import CoreError, Fault
from service.api.operations import methods_at
from service.auth import Caller
from service.errors import KINDS, Problem, problem_from_core
from service.storage import is_full

log = logging.getLogger(__name__)

_POSTGRESQL_FULL = "53100"
_SLUG_OF_STATUS = {
    400: "malformed-request",
    401: "unauthenticated",
    403: "missing-scope",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    413: "too-large",
    415: "unsupported-media",
    429: "too-many-requests",
    503: "unavailable",
}


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def install_error_handlers(app: FastAPI) -> None:
    """Answer every expected exception with a problem; the unexpected ones are left to `RequestContext`."""
    for kind in (Problem, CoreError, RequestValidationError, HTTPException, OperationalError, PoolTimeout, DataError):
        app.add_exception_handler(kind, _handle)


def answer(error: Exception, scope: Scope) -> ProblemResponse:
    """The answer to the request `scope` that ended with `error`; what nobody foresaw is logged with its traceback."""
    problem = problem_from(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Problem):
        log.error("request failed: %s", problem.detail, exc_info=error)
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    content = problem.as_json(
        instance=scope["path"],
        request_id=state.get("request_id"),
        may_read=caller is not None and caller.may("read"),
    )
    return ProblemResponse(content, status_code=problem.status, headers=problem.headers | _allow(problem, scope))


def problem_from(error: Exception) -> Problem:
    """The problem that an exception is; one that we do not know becomes `internal` and tells nothing of itself."""
    match error:
        case Problem():
            return error
        case CoreError():
            return problem_from_core(error)
        case RequestValidationError():
            return _from_validation(error)
        case HTTPException():
            return _from_http(error)
        case OperationalError() if _is_full(error):
            return _disk_full("the database cannot be written")
        case OSError() if is_full(error):
            return _disk_full("what was sent or made of it cannot be written")
        case OperationalError() | PoolTimeout():
            return _busy()
        case ClientDisconnect():
            return Problem("malformed-request", "The client hung up before the body was complete.")
        case DataError():
            return Problem(
                "invalid-request", "A value cannot be stored: text may not contain NUL, numbers have 64 bits."
            )
    return Problem("internal", "An unexpected error; the log has more under this request's id.")


def _allow(problem: Problem, scope: Scope) -> dict[str, str]:
    """The header of a 405 answer; Starlette's own names the methods of one route only."""
    if problem.status != HTTPStatus.METHOD_NOT_ALLOWED:
        return {}
    methods = methods_at(scope["app"].state.operations, scope)
    return {"Allow": ", ".join(methods)} if methods else {}


async def _handle(request: Request, error: Exception) -> ProblemResponse:
    return answer(error, request.scope)


def _busy() -> Problem:
    return Problem(
        "unavailable",
        "The database does not answer or is busy.",
        hint="Try again; `GET /healthz/ready` tells what is wrong if it stays so.",
        headers={"Retry-After": "5"},
    )


def _is_full(error: OperationalError) -> bool:
    """True if the database says that its disk is full."""
    code = getattr(error.orig, "sqlite_errorcode", None) or getattr(error.orig, "sqlstate", None)
    return code in (sqlite3.SQLITE_FULL, _POSTGRESQL_FULL)


def _disk_full(what: str) -> Problem:
    return Problem(
        "disk-full",
        f"The disk is full: {what}, and nothing was changed.",
        hint="Free some space; deleting data sets, models or galleries that nobody needs does.",
    )


def _from_http(error: HTTPException) -> Problem:
    if isinstance(error.detail, Problem):  # raised where FastAPI lets only an HTTPException through
        return error.detail
    slug = _SLUG_OF_STATUS.get(error.status_code, "unprocessable" if error.status_code < 500 else "internal")
    detail = KINDS[slug].title if error.detail == HTTPStatus(error.status_code).phrase else str(error.detail)
    hint = "`GET /` says where to go on." if slug == "not-found" else ""
    return Problem(slug, detail, hint=hint, headers=error.headers)


def _from_validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    for item in found:
        if item["type"] == "json_invalid":
            return Problem("malformed-request", f"The body is not JSON: {item['ctx']['error']}.")
    if isinstance(error.body, bytes):
        return Problem(
            "unsupported-media",
            "The body is JSON here, but the request says otherwise.",
            hint="Send `Content-Type: application/json`.",
        )
    faults = [Fault(_pointer(item["loc"], error.body), item["type"], item["msg"]) for item in found]
    summary = "; ".join(f"{fault.pointer or 'the body'}: {fault.message}" for fault in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Problem("invalid-request", summary + more, errors=faults)


def _pointer(location: Sequence[str | int], body: Any) -> str:
    """The JSON pointer of pydantic's location: `/settings/epochs` in the body, `/query/limit` outside of it."""
    where, *steps = location
    steps = _steps_in(body, steps) if where == "body" else [where, *steps]
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _steps_in(body: Any, steps: Sequence[str | int]) -> list[str | int]:
    """The steps that lead into the body itself; pydantic also names the member of a union that it tried."""
    found: list[str | int] = []
    body = {} if body is None else body
    for number, step in enumerate(steps):
        if isinstance(body, list) and isinstance(step, int):
            found.append(step)
            body = body[step] if step < len(body) else None
        elif isinstance(body, Mapping) and (step in body or number == len(steps) - 1):
            found.append(step)
            body = body.get(step)
    return found
