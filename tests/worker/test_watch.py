"""What a worker does beside its jobs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from service.db.ids import new_id
from service.db.schema import upgrade
from service.db.session import open_database
from service.jobs import enqueue
from service.settings import Settings
from worker import watch as watching


def test_a_watch_outlasts_a_fault_and_removes_what_killed_uploads_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home")
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    with database.write() as session:
        enqueue(session, "train", {})
    lost = settings.uploads_dir / f"{new_id('ds')}.part"
    lost.parent.mkdir()
    lost.touch()
    os.utime(lost, (0, time.time() - 7200))
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
    database.close()
