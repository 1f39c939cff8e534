"""The time as the service writes it: aware UTC inside, RFC 3339 with `Z` outside."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(at: datetime) -> str:
    """`2026-01-31T12:00:00.123456Z`; `at` is aware, in any zone."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
