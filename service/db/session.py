"""The database: one engine, with `read()` and `write()` as the only ways to a session."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

_BUSY_TIMEOUT_SECONDS = 30.0
_LOCKED_SECONDS = 0.01
_SQLITE_POOL = {"pool_size": 5, "max_overflow": 40}  # a connection for each of the 40 threads that run handlers
_POSTGRESQL_POOL = {"pool_size": 5, "max_overflow": 15, "pool_pre_ping": True}  # a server allows 100 in all by default

# Parameters are hidden in both: an error that is logged must tell no labels and no secrets.
_READ_OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
_WRITE_OPTIONS: dict[str, dict[str, Any]] = {"sqlite": {"sqlite_begin": "BEGIN IMMEDIATE"}, "postgresql": {}}


class Database:
    """An open database. Sessions from `read` and `write` belong to one thread; rows stay readable after them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader = engine.execution_options(**_READ_OPTIONS[self.dialect])
        self._writer = engine.execution_options(**_WRITE_OPTIONS[self.dialect])

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment and keeps nothing: what is changed in it is rolled back."""
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back on an error. On SQLite one writer at a time gets in."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """A connection that sees one moment, for plain rows where a session's objects would take too long."""
        with self._reader.connect() as connection:
            yield connection

    def scrub(self) -> None:
        """Leave nothing of deleted rows in SQLite's files: empties the write-ahead log into the database, where freed
        bytes are zeroed. PostgreSQL's own vacuum does the like in its time.

        Raises OSError where a full disk or a long read prevents it.
        """
        if self.dialect != "sqlite":
            return
        with closing(self.engine.raw_connection()) as connection:  # a checkpoint cannot run inside a transaction
            try:
                ((busy, _, _),) = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.OperationalError as error:
                raise OSError(f"the database's log cannot be emptied: {error}") from error
        if busy:
            raise OSError("the database's log cannot be emptied: somebody reads from it for long")

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """The database at `url`, `sqlite:///<file>` (its folder is made) or `postgresql://...`. Opens no connection yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Database(_sqlite_engine(parsed))
    if parsed.get_backend_name() == "postgresql":
        return Database(_postgresql_engine(parsed))
    raise ValueError(f"database URLs start with sqlite:/// or postgresql://, not with {parsed.drivername!r}")


def _sqlite_engine(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError(
            "a SQLite database needs a file, e.g. sqlite:////var/lib/reid/reid.db: several processes use it"
        )
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"timeout": _BUSY_TIMEOUT_SECONDS}
    engine = create_engine(url, connect_args=arguments, hide_parameters=True, **_SQLITE_POOL)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(url.set(drivername="postgresql+psycopg"), hide_parameters=True, **_POSTGRESQL_POOL)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # Python's driver would begin late and never immediate; `_begin_sqlite` does it
    _switch_to_wal(connection)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Waits by itself where several open a new database at once: SQLite's wait for locks leaves this statement out."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCKED_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
