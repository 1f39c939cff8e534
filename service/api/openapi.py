"""The OpenAPI description: FastAPI's own, with problem answers declared once for all routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api.idempotency import HEADER, MAX_KEY_LENGTH
from service.api.problems import ProblemBody, WrongValue

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be read.", "content": _PROBLEM},
    401: {"description": "An API key is needed.", "content": _PROBLEM},
    403: {"description": "The key lacks the scope.", "content": _PROBLEM},
    404: {"description": "There is no such thing.", "content": _PROBLEM},
    422: {"description": "A value is impossible; `errors` points at it.", "content": _PROBLEM},
    "4XX": {"description": "Another fault of the request, see `GET /problems`.", "content": _PROBLEM},
    "5XX": {"description": "A fault of the service, see `GET /problems`.", "content": _PROBLEM},
}
"""For `include_router(responses=...)`."""

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
        for model in (ProblemBody, WrongValue):
            body = model.model_json_schema(ref_template="#/components/schemas/{model}")
            body.pop("$defs", None)
            schemas[model.__name__] = body
        for operations in schema["paths"].values():
            if (post := operations.get("post")) and _IDEMPOTENCY_KEY not in post.setdefault("parameters", []):
                post["parameters"].append(_IDEMPOTENCY_KEY)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
