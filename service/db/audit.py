"""The audit log: who did what to what, and when."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.db.tables import AuditEntry


def record(session: Session, *, key_id: str | None, action: str, target: str | None = None, **detail: Any) -> None:
    """Add an entry, kept or lost together with what the session does.

    `action` is a word such as `search` or `gallery.erase_identity`, `target` the id of what it was done to. Nothing
    that has been erased may stand in `detail`: no identities, file names or vectors.
    """
    session.add(AuditEntry(key_id=key_id, action=action, target=target, detail=detail))
