"""The audit log, newest entry first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy import select

from service.api.dependencies import DatabaseDep, PageDep, require
from service.api.pagination import filter_equal, list_page
from service.db.tables import AuditEntry
from service.keys.schemas import AuditAnswer
from service.schemas import Listing

router = APIRouter(tags=["keys"])

Filter = Annotated[str | None, Query(max_length=200)]


@router.get("/audit", dependencies=[require("admin")])
def list_audit(
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    action: Filter = None,
    key: Filter = None,
    target: Filter = None,
) -> Listing[AuditAnswer]:
    """The audit log; `action`, `key` (an id) and `target` (an id) narrow it down.

    Searches that another API process has just answered come up to a second later.
    """
    request.app.state.journal.flush()
    statement = filter_equal(
        select(AuditEntry), (AuditEntry.action, action), (AuditEntry.key_id, key), (AuditEntry.target, target)
    )
    with database.read() as session:
        return list_page(session, statement, AuditEntry.id, page, answer_of=AuditAnswer.of, newest_first=True)
