"""Alembic's entry: runs the migrations on the connection it is given, or on the configured database from a shell."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from service.db.session import open_database
from service.db.tables import Base
from service.db.types import UtcDateTime
from service.settings import get_settings


def run(connection: Connection) -> None:
    """Migrate inside the transaction that `connection` is in or begins."""
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=_plain_types
    )
    with context.begin_transaction():
        context.run_migrations()


def _plain_types(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Writes our column types into a new migration as SQLAlchemy's: migrations must not change with the code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with open_database(get_settings().database_url).engine.begin() as own:
        run(own)
