"""The kinds of problems, for people and programs that follow the `type` of an error."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.errors import KINDS, ProblemKind, not_found

router = APIRouter(tags=["service"])


class WrongValue(BaseModel):
    pointer: str = Field(description="A JSON pointer into the body, or `/query/…`, `/path/…`, `/header/…`.")
    code: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457: what every answer with 4xx or 5xx holds."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    hint: str
    errors: list[WrongValue]


@router.get("/problems")
def list_problem_kinds() -> dict[str, Any]:
    """Every kind of problem that an answer may be."""
    return {"items": [_as_json(slug, kind) for slug, kind in KINDS.items()], "next_cursor": None}


@router.get("/problems/{slug}")
def read_problem_kind(slug: str) -> dict[str, Any]:
    """What this kind of problem means."""
    if slug not in KINDS:
        raise not_found("kind of problem", slug, known=list(KINDS))
    return _as_json(slug, KINDS[slug])


def _as_json(slug: str, kind: ProblemKind) -> dict[str, Any]:
    return {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status, "explanation": kind.explanation}
