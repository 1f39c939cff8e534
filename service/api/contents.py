"""Bodies that may be JSON or a form with files: which of the two it is, and checked values out of either."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.errors import Problem, invalid_request

Checked = TypeVar("Checked")
BodyModel = TypeVar("BodyModel", bound=BaseModel)


def is_json(request: Request) -> bool:
    """True for JSON, False for a form with files; raises 415 for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("application/json", "multipart/form-data"):
        return kind == "application/json"
    raise Problem(
        "unsupported-media",
        f"The body is {kind or 'of no stated type'}.",
        hint="Send multipart/form-data with files, or application/json.",
    )


async def read_json(request: Request) -> Any:
    """The body's value; raises 400 where it is not JSON."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Problem("malformed-request", f"The body is not JSON: {error}.") from error


def check(model: type[BodyModel], values: Any) -> BodyModel:
    """`values`, which came as the body, as a `model`; raises 422 with pointers into the body."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _with_pointers(error, values) from error


def check_field(adapter: TypeAdapter[Checked], text: str | bytes, field: str) -> Checked:
    """The JSON in a form's `field` as what `adapter` takes; raises 422 with pointers below that field."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{field} is not JSON: {error}"
        raise invalid_request(f"/{field}", "json-invalid", message) from error
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _with_pointers(error, {field: value}, field) from error


def _with_pointers(error: ValidationError, body: Any, *below: str) -> RequestValidationError:
    found = [{**item, "loc": ("body", *below, *item["loc"])} for item in error.errors(include_url=False)]
    return RequestValidationError(found, body=body)
