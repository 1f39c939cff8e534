"""The migrations make exactly the tables that the code uses, on both databases, and only once."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade as upgrade_to
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, create_engine, inspect, make_url, select, text
from sqlalchemy.exc import OperationalError
from typer import Exit

from service.clock import utc_now
from service.db import migrations
from service.db.lookup import find
from service.db.schema import await_server, current_version, latest_version, upgrade
from service.db.session import Database, open_database
from service.db.tables import Base, Dataset, DatasetImage
from service.settings import Settings
from tests.waiting import HANG_SECONDS


def test_migrations_and_tables_agree(each_database: Database) -> None:
    with each_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_missing_column_is_noticed(each_database: Database) -> None:
    with each_database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE workers DROP COLUMN queues"))
        context = MigrationContext.configure(connection)
        (difference,) = compare_metadata(context, Base.metadata)
    assert difference[0] == "add_column"


def test_the_version_is_known_before_and_after(settings: Settings) -> None:
    database = open_database(settings.database_url)
    with database.engine.connect() as connection:
        assert current_version(connection) is None
    upgrade(settings.database_url)
    with database.engine.connect() as connection:
        assert current_version(connection) == latest_version()
    database.close()


def test_upgrading_again_changes_nothing(each_database: Database) -> None:
    url = each_database.engine.url.render_as_string(hide_password=False)
    upgrade(url)
    with each_database.engine.connect() as connection:
        assert _tables(connection) == {*Base.metadata.tables, "alembic_version"}


@pytest.mark.parametrize("fixture", ["settings", "postgresql_url"])
def test_a_database_of_the_first_version_keeps_what_it_holds(fixture: str, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(fixture)
    url = value.database_url if isinstance(value, Settings) else value
    database = open_database(url)
    with database.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        upgrade_to(config, "0001")
        connection.execute(text("INSERT INTO workers (name, queues, heartbeat_at) VALUES ('w', '[]', '2026-01-01')"))
    upgrade(url)
    with database.engine.connect() as connection:
        assert current_version(connection) == latest_version()
        assert connection.execute(text("SELECT name FROM workers")).scalars().all() == ["w"]
    database.close()


@pytest.mark.parametrize("fixture", ["settings", "postgresql_url"])
def test_processes_that_start_together_upgrade_once(fixture: str, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(fixture)
    url = value.database_url if isinstance(value, Settings) else value
    # Processes, since Alembic keeps its state in module variables: threads of one process could not do this.
    command = [sys.executable, "-c", f"from service.db.schema import upgrade; upgrade({url!r})"]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(HANG_SECONDS) for process in running] == [0, 0]
    database = open_database(url)
    with database.engine.connect() as connection:
        assert current_version(connection) == latest_version()
    database.close()


@pytest.mark.parametrize("fixture", ["settings", "postgresql_url"])
def test_labels_and_names_of_an_earlier_version_become_what_is_compared_now(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    value = request.getfixturevalue(fixture)
    database = open_database(value.database_url if isinstance(value, Settings) else value)
    _upgrade_to(database, "0001")
    now, composed, decomposed = utc_now(), "Jos\u00e9", "Jose\u0301"
    dataset = {"path": "/x", "format": "auto", "state": "ready", "uploaded": False, "created_at": now}
    names = {"ds_1": decomposed, "ds_2": f" {composed} ", "ds_3": "lobby "}
    labels = {"img_1": decomposed, "img_2": f" {composed}", "img_3": "anna", "img_4": "  "}
    with database.engine.begin() as connection:
        tables = MetaData()
        tables.reflect(connection)
        rows = [{"id": key, "name": name, **dataset} for key, name in names.items()]
        connection.execute(tables.tables["datasets"].insert(), rows)
        rows = [
            {"id": key, "dataset_id": "ds_1", "split": "train", "position": position, "path": key, "identity": label}
            | {"camera": label if key == "img_1" else ""}
            for position, (key, label) in enumerate(labels.items())
        ]
        connection.execute(tables.tables["dataset_images"].insert(), rows)
    _upgrade_to(database, "head")

    with database.read() as session:
        images = {image.id: image for image in session.scalars(select(DatasetImage))}
        assert {key: image.identity for key, image in images.items()} == {
            "img_1": composed,
            "img_2": composed,
            "img_3": "anna",
            "img_4": "  ",
        }
        assert (images["img_1"].camera, images["img_1"].num_bytes, images["img_1"].clothes) == (composed, None, None)
        # Two names that are now the same: the earlier thing has it, the other keeps its own.
        assert dict(session.execute(select(Dataset.id, Dataset.name)).all()) == {
            "ds_1": composed,
            "ds_2": f" {composed} ",
            "ds_3": "lobby",
        }
        assert find(session, Dataset, decomposed).id == "ds_1"
        assert find(session, Dataset, "ds_2").id == "ds_2"
    database.close()


def _upgrade_to(database: Database, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def test_a_server_that_starts_late_is_waited_for(postgresql_url: str) -> None:
    url = make_url(postgresql_url)
    late = open_database(url.set(database=f"{url.database}_late").render_as_string(hide_password=False))
    server = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with server.connect() as connection:
            connection.execute(text(f"{statement} {url.database}_late"))

    with pytest.raises(OperationalError, match="does not exist"):
        await_server(late, 0.3)
    start = threading.Timer(0.5, run, ["CREATE DATABASE"])
    start.start()
    await_server(late, HANG_SECONDS)
    start.join()
    late.close()
    run("DROP DATABASE")
    server.dispose()


def test_reid_migrate_names_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    up = import_module("service.cli.up")  # the package's own `up` is the command
    monkeypatch.setattr(up, "DATABASE_SECONDS", 0.1)
    monkeypatch.setattr(up, "keep_private", lambda: None)  # it is for a process of its own
    monkeypatch.setenv("REID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REID_DATABASE_URL", "postgresql://reid:nobody-knows@127.0.0.1:1/reid")
    with pytest.raises(Exit) as ended:
        up.run_migrate()
    assert ended.value.exit_code == 1
    said = capsys.readouterr().err
    assert "The database cannot be reached" in said
    assert "nobody-knows" not in said
