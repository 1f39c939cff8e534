"""The sweeps of a worker, beside its jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.clock import utc_now
from service.db.ids import new_id
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.jobs import enqueue, lifecycle, sweep
from service.settings import Settings
from tests.waiting import HANG_SECONDS, wait_until
from worker import watch as watching


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    yield database
    database.close()


class SleepyMachine(threading.Event):
    """Its first wait lasts an hour; in the second a living job renews its lease; the third shuts the watch down."""

    def __init__(self, database: Database, job_id: str, attempt: int | None) -> None:
        super().__init__()
        self.now = utc_now()
        self.states: list[str | None] = []
        self._database, self._job_id, self._attempt = database, job_id, attempt

    def wait(self, timeout: float | None = None) -> bool:
        with self._database.write() as session:
            self.states.append(lifecycle.find_job(session, self._job_id).state)
            if len(self.states) == 2 and self._attempt is not None:
                lifecycle.renew(session, self._job_id, self._attempt, 20)
        self.now += timedelta(hours=1) if len(self.states) == 1 else timedelta(seconds=2)
        if len(self.states) == 3:
            self.set()
        return self.is_set()


@pytest.mark.parametrize(("lives", "state"), [(True, "running"), (False, "interrupted")])
def test_a_sleep_of_the_whole_machine_costs_only_dead_jobs_their_lease(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, lives: bool, state: str
) -> None:
    with database.write() as session:
        job_id = enqueue(session, "train", {}).id
    attempt = lifecycle.claim(database, job_id, "worker", 20)
    machine = SleepyMachine(database, job_id, attempt if lives else None)
    for module in (watching, sweep, lifecycle):
        monkeypatch.setattr(module, "utc_now", lambda: machine.now)

    watching.watch(settings, database, "worker", ["short"], lambda job_id, kind: None, machine)

    assert machine.states == ["running", "running", state]


def test_a_watch_outlasts_a_fault_and_removes_what_killed_uploads_left(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        enqueue(session, "train", {})
    lost = settings.uploads_dir / f"{new_id('ds')}.part"
    lost.parent.mkdir()
    lost.touch()
    shutdown, faults = threading.Event(), iter([OSError("the disk is gone")])

    def send(job_id: str, kind: str) -> None:
        if fault := next(faults, None):
            raise fault

    monkeypatch.setattr(watching, "_SECONDS", 0.01)
    watch = threading.Thread(target=watching.watch, args=(settings, database, "worker", ["short"], send, shutdown))
    watch.start()
    while lost.exists() and watch.is_alive():
        time.sleep(0.01)
    shutdown.set()
    watch.join()

    assert not lost.exists()


def test_the_heartbeat_file_is_touched_only_while_the_database_is_told_too(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"heartbeat_file": tmp_path / "heartbeat"})
    rounds = threading.Semaphore(0)
    monkeypatch.setattr(watching, "_SECONDS", 0.01)
    monkeypatch.setattr(watching, "sweep", lambda *_, **__: rounds.release())
    shutdown = threading.Event()
    arguments = (settings, database, "worker", ["short"], lambda job_id, kind: None, shutdown)
    watch = threading.Thread(target=watching.watch, args=arguments)
    watch.start()
    assert rounds.acquire(timeout=HANG_SECONDS)
    assert settings.heartbeat_file.exists()

    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE workers RENAME TO elsewhere"))
    settings.heartbeat_file.unlink()
    time.sleep(0.2)
    assert not settings.heartbeat_file.exists()

    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO workers"))
    wait_until(settings.heartbeat_file.exists)
    shutdown.set()
    watch.join()
