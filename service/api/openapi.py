"""The OpenAPI description: FastAPI's own, with the problems that middleware answers, and the Idempotency-Key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api.idempotency import HEADER, MAX_KEY_LENGTH
from service.errors import KINDS
from service.schemas import Answer, ProblemAnswer, WrongValue

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Declares that a route can answer with problems of these statuses, beside those that all of its sort can."""
    return {status: {"description": _titles(status), "content": _PROBLEM} for status in statuses}


def _titles(status: int) -> str:
    """The kinds of problems with that status, in words."""
    return "; ".join(kind.title for kind in KINDS.values() if kind.status == status) + "."


COMMON_PROBLEMS = problems(401, 422, 503)
"""Every route refuses strangers and unknown parameters, and keys are looked up in the database."""

_IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
    "description": "Sent again with the same body, it gives the first answer again and does nothing twice.",
}


def operation_id(route: APIRoute) -> str:
    """The function's name, so that generated clients read well; a test holds the names unique."""
    return route.name


def complete_openapi(app: FastAPI) -> None:
    """Add what FastAPI cannot know of: the schema of problems, and the header that every POST takes."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for model in (ProblemAnswer, WrongValue):
            body = model.model_json_schema(ref_template="#/components/schemas/{model}")
            body.pop("$defs", None)
            schemas[model.__name__] = body
        for name, examples in _examples(Answer):
            if name in schemas:  # FastAPI leaves nulls out of them
                schemas[name]["examples"] = examples
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def _examples(answer: type[Answer]) -> Iterator[tuple[str, Any]]:
    """The examples of the answer's subclasses by their names."""
    for kind in answer.__subclasses__():
        extra = kind.model_config.get("json_schema_extra")
        if isinstance(extra, dict):
            yield kind.__name__, extra["examples"]
        yield from _examples(kind)


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Adds what middleware and dependencies do to an operation of this sort."""
    parameters = operation.setdefault("parameters", [])
    if method == "post" and _IDEMPOTENCY_KEY not in parameters:
        parameters.append(_IDEMPOTENCY_KEY)
    for status, response in problems(*_common_statuses(path, method, operation)).items():
        operation["responses"].setdefault(str(status), response)


def _common_statuses(path: str, method: str, operation: dict[str, Any]) -> Iterator[int]:
    if "security" in operation:
        yield from (403, 429)
    if "{" in path:
        yield 404
    if any(parameter["name"] == "cursor" for parameter in operation["parameters"]):
        yield 400
    if "requestBody" in operation:
        yield from (400, 408, 413, 415)
    if method == "post":
        yield from (400, 409)  # the Idempotency-Key
    if method != "get":
        yield 507
