"""The schema's version: bringing a database to ours, and telling whether it is there."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from service.db.session import Database, open_database

_LOOK_SECONDS = 0.1
_UPGRADE_LOCK = 7_203_019_521
"""Any number that no other program uses as an advisory lock in the same PostgreSQL database."""


def upgrade(database_url: str) -> None:
    """Run the migrations that the database at `database_url` lacks, all or none; several processes may try at once."""
    database = open_database(database_url)
    try:
        options = {"sqlite_begin": "BEGIN IMMEDIATE"} if database.dialect == "sqlite" else {}
        with database.engine.execution_options(**options).begin() as connection:
            if database.dialect == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.close()


def current_version(connection: Connection) -> str | None:
    """The version of the database behind `connection`; None if no migration ever ran."""
    return MigrationContext.configure(connection).get_current_revision()


def await_schema(database: Database) -> None:
    """Returns once the database answers and is at this code's version, to which another process brings it."""
    while True:
        with suppress(SQLAlchemyError), database.engine.connect() as connection:
            if current_version(connection) == latest_version():
                return
        time.sleep(_LOOK_SECONDS)


def await_server(database: Database, seconds: float) -> None:
    """Returns once the database answers; raises its last OperationalError when it has not within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with database.engine.connect():
                return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SECONDS)


@cache
def latest_version() -> str:
    """The version that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations; it was installed without service/db/migrations/versions")
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
