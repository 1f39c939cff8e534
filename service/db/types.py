"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, always UTC when read; SQLite would otherwise give it back naive. Naive values are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use service.clock.utc_now() or an aware datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        aware: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC)


class utc_text(FunctionElement[str]):  # noqa: N801  # a SQL function, spelled like SQLAlchemy's own
    """A `UtcDateTime` column as ISO 8601 text in UTC without an offset: for a million rows, a datetime each is slow."""

    type = String()
    inherit_cache = True


@compiles(utc_text, "sqlite")
def _stored_text(element: utc_text, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(utc_text, "postgresql")
def _cast_text(element: utc_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(timezone('UTC', {compiler.process(element.clauses, **options)}) AS TEXT)"


Json = JSON(none_as_null=True)
"""Any JSON value; Python's None is SQL's NULL. A value changed in place is not noticed: assign a new one."""

Counter = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit number that SQLite can count up by itself."""
