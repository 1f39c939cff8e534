"""The bodies and answers of the routes of API keys and of the audit log."""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field

from service.auth import Scope
from service.db.tables import ApiKey, AuditEntry
from service.schemas import Answer, Body, Instant, Name, Time, example


class KeyBody(Body):
    """A new key."""

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=5)
    expires_at: Instant | None = Field(default=None, description="With a time zone; unset: never.")


_KEY: dict[str, Any] = {
    "id": "key_01jb2c3d4e5f6g7h8j9k0m1n2p",
    "name": "camera-gateway",
    "prefix": "reid_AbC123",
    "scopes": ["search", "write"],
    "created_at": "2026-01-31T12:00:00Z",
    "expires_at": None,
    "last_used_at": None,
}


class KeyAnswer(Answer):
    """A key without the secret itself."""

    model_config = example(**_KEY)

    id: str
    name: str
    prefix: str = Field(description="the key's first characters, to tell keys apart")
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None

    @classmethod
    def of(cls, row: ApiKey) -> KeyAnswer:
        """The key as admins see it."""
        return cls(
            id=row.id,
            name=row.name,
            prefix=row.prefix,
            scopes=cast("list[Scope]", row.scopes),
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )


class NewKeyAnswer(KeyAnswer):
    """A key that was made just now, with the secret, which is never shown again."""

    model_config = example(**_KEY, key="reid_AbC123…")

    key: str


class AuditAnswer(Answer):
    """An entry of the audit log: who did what to what, and when."""

    model_config = example(
        id="42",
        at="2026-01-31T12:00:00Z",
        key="key_01jb2c3d4e5f6g7h8j9k0m1n2p",
        action="search",
        target="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        detail={"search_id": "search_01jb2c3d4e5f6g7h8j9k0m1n2p"},
    )

    id: str
    at: Time
    key: str | None = Field(description="the id of the key; null while authentication is off")
    action: str
    target: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditAnswer:
        """The entry as admins see it."""
        return cls(
            id=str(entry.id),
            at=entry.at,
            key=entry.key_id,
            action=entry.action,
            target=entry.target,
            detail=entry.detail,
        )
