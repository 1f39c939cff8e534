"""Who did what, and when: newest first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select

from service.api.dependencies import DatabaseDep, PageDep, require
from service.api.pagination import list_page, narrowed
from service.clock import rfc3339
from service.db.tables import AuditEntry

router = APIRouter(tags=["keys"])

Filter = Annotated[str | None, Query(max_length=200)]


@router.get("/audit", dependencies=[require("admin")])
def list_audit(
    database: DatabaseDep, page: PageDep, action: Filter = None, key: Filter = None, target: Filter = None
) -> dict[str, Any]:
    """The audit log; `action`, `key` (an id) and `target` (an id) narrow it down."""
    statement = narrowed(
        select(AuditEntry), (AuditEntry.action, action), (AuditEntry.key_id, key), (AuditEntry.target, target)
    )
    with database.read() as session:
        return list_page(session, statement, AuditEntry.id, page, as_json=_as_json, newest_first=True)


def _as_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": rfc3339(entry.at),
        "key": entry.key_id,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
    }
