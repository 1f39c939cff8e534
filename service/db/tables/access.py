"""Keys, the audit log, remembered answers and files to be removed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from service.clock import utc_now
from service.db.tables.base import Base, JsonObject
from service.db.types import Counter


class ApiKey(Base):
    """A key by its hash; `prefix` is the key's beginning, for people to tell keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEntry(Base):
    """An entry of the audit log. `key_id` outlives the key; it is None while authentication is off."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "at"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Counter, primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    key_id: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str | None]
    detail: Mapped[JsonObject]


class RememberedAnswer(Base):
    """The first answer to a POST with an Idempotency-Key; `status` is None while the request is still running."""

    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "created_at"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[JsonObject | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class PendingRemoval(Base):
    """A file or folder, relative to the home, whose rows are deleted and which is still to be removed."""

    __tablename__ = "pending_removals"

    path: Mapped[str] = mapped_column(primary_key=True)
