"""The kinds of problems, for people and programs that follow the `type` of an error."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.schemas import ProblemKindAnswer
from service.errors import KINDS, not_found
from service.schemas import Listing

router = APIRouter(tags=["service"])


@router.get("/problems")
def list_problem_kinds() -> Listing[ProblemKindAnswer]:
    """Every kind of problem that an answer may be."""
    return Listing(items=[ProblemKindAnswer.of(slug, kind) for slug, kind in KINDS.items()], next_cursor=None)


@router.get("/problems/{slug}")
def read_problem_kind(slug: str) -> ProblemKindAnswer:
    """Explain one kind of problem."""
    if slug not in KINDS:
        raise not_found("kind of problem", slug, known=list(KINDS))
    return ProblemKindAnswer.of(slug, KINDS[slug])
