"""Sessions, columns and ids behave the same on both databases, and SQLite takes several writers."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from service.clock import rfc3339
from service.db.ids import new_id, new_ids
from service.db.session import Database, open_database
from service.db.tables import AuditEntry, Dataset, DatasetImage, Job, JobDataset, JobEvent, Model, Worker
from service.settings import Settings


def test_write_commits_and_rows_stay_readable(each_database: Database) -> None:
    with each_database.write() as session:
        session.add(_job(spec={"method": "bnneck", "deep": {"list": [1, 2.5, None]}}))
    with each_database.read() as session:
        job = session.scalars(select(Job)).one()
    assert job.spec == {"method": "bnneck", "deep": {"list": [1, 2.5, None]}}
    assert job.attempt == 0
    assert job.created_at.tzinfo == UTC


def test_an_error_rolls_back_the_whole_write(each_database: Database) -> None:
    with pytest.raises(IntegrityError), each_database.write() as session:
        session.add_all([_job(), _dataset(), _dataset()])  # the second data set takes the first one's name
    assert _count(each_database, Job) == 0


def test_an_error_names_no_values(each_database: Database) -> None:
    first, second = _job(), _job()
    first.webhook_secret = second.webhook_secret = "a secret"
    second.id = first.id
    with pytest.raises(IntegrityError) as caught, each_database.write() as session:
        session.add_all([first, second])
    assert "INSERT INTO" in str(caught.value)
    assert "a secret" not in str(caught.value)


def test_a_read_session_keeps_nothing(each_database: Database) -> None:
    with each_database.read() as session:
        session.add(_job())
    assert _count(each_database, Job) == 0


def test_a_read_session_sees_one_moment(each_database: Database) -> None:
    with each_database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        with each_database.write() as other:
            other.add(_job())
        assert session.scalar(select(func.count()).select_from(Job)) == 0
    assert _count(each_database, Job) == 1


def test_times_come_back_in_utc_to_the_microsecond(each_database: Database) -> None:
    local = datetime(2026, 3, 29, 1, 59, 59, 123456, tzinfo=timezone(timedelta(hours=2)))
    with each_database.write() as session:
        session.add(Worker(name="w", queues=["short"], heartbeat_at=local))
    with each_database.read() as session:
        found = session.scalars(select(Worker)).one().heartbeat_at
        earlier = session.scalars(select(Worker).where(Worker.heartbeat_at < local)).all()
    assert rfc3339(found) == "2026-03-28T23:59:59.123456Z"
    assert earlier == []


def test_a_time_without_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="has no time zone"), database.write() as session:
        session.add(Worker(name="w", queues=[], heartbeat_at=datetime(2026, 1, 1)))


def test_foreign_keys_are_enforced_and_cascade(each_database: Database) -> None:
    with pytest.raises(IntegrityError), each_database.write() as session:
        session.add(JobEvent(job_id="job_none", kind="log", data={}))
    job, dataset = _job(), _dataset()
    with each_database.write() as session:
        session.add_all([job, dataset])
        session.flush()
        session.add(JobDataset(job_id=job.id, dataset_id=dataset.id))
        session.add(_dataset_image(dataset.id))
    with each_database.write() as session:
        session.delete(session.get_one(Dataset, dataset.id))
    assert (_count(each_database, DatasetImage), _count(each_database, JobDataset)) == (0, 0)
    assert _count(each_database, Job) == 1


def test_event_ids_never_come_twice(each_database: Database) -> None:
    job = _job()
    with each_database.write() as session:
        session.add(job)
        session.flush()
        session.add(JobEvent(job_id=job.id, kind="log", data={}))
    with each_database.write() as session:
        (first,) = session.scalars(select(JobEvent.id))
        session.execute(text("DELETE FROM job_events"))
        session.add(JobEvent(job_id=job.id, kind="log", data={}))
    with each_database.read() as session:
        (second,) = session.scalars(select(JobEvent.id))
    assert second > first


def test_several_writers_lose_nothing(database: Database) -> None:
    def count_up() -> None:
        for _ in range(20):
            with database.write() as session:  # reads, then writes: without BEGIN IMMEDIATE this would fail
                worker = session.get_one(Worker, "w")
                worker.queues = [*worker.queues, "x"]

    with database.write() as session:
        session.add(Worker(name="w", queues=[], heartbeat_at=datetime.now(UTC)))
    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert len(session.get_one(Worker, "w").queues) == 80


def test_sqlite_is_set_up_to_survive_and_to_forget(database: Database) -> None:
    with database.read() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        found = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas}
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "secure_delete": 1}


def test_a_new_database_is_opened_by_several_at_once(tmp_path: Path) -> None:
    for number in range(30):
        databases = [open_database(f"sqlite:///{tmp_path}/{number}.db") for _ in range(4)]
        start = threading.Barrier(len(databases))
        failed: list[Exception] = []

        def write(database: Database, start: threading.Barrier = start, failed: list[Exception] = failed) -> None:
            start.wait()
            try:
                with database.write() as session:
                    session.execute(text("CREATE TABLE IF NOT EXISTS made (by INTEGER)"))
            except Exception as error:  # noqa: BLE001  the assertion shows it
                failed.append(error)

        threads = [threading.Thread(target=write, args=(database,)) for database in databases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for database in databases:
            database.close()
        assert failed == []


def test_scrub_leaves_no_byte_of_a_deleted_row(database: Database, settings: Settings) -> None:
    with database.write() as session:
        session.add_all([AuditEntry(action=f"forget-me-{i}", detail={"padding": "x" * 500}) for i in range(200)])
    assert b"forget-me-7" in _stored_bytes(settings.home)
    with database.write() as session:
        session.execute(text("DELETE FROM audit"))
    assert b"forget-me-7" in _stored_bytes(settings.home), "the write-ahead log should still have it"
    database.scrub()
    assert b"forget-me-" not in _stored_bytes(settings.home)


def test_ids_sort_by_time_and_never_repeat() -> None:
    one_after_another = [new_id("job") for _ in range(2000)]
    assert len({*one_after_another, *new_ids("job", 5000)}) == 7000
    assert all(id.startswith("job_") and len(id) == 30 for id in one_after_another)
    early = new_id("ds")
    time.sleep(0.001)
    assert early < new_id("ds")
    batch = new_ids("img", 1000)
    assert batch == sorted(batch)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        open_database(url)


def _job(spec: dict[str, object] | None = None) -> Job:
    return Job(id=new_id("job"), kind="train", state="queued", spec=spec or {})


def _dataset() -> Dataset:
    return Dataset(id=new_id("ds"), name="lobby", path="/data/lobby", format="auto", state="pending", uploaded=False)


def _dataset_image(dataset_id: str) -> DatasetImage:
    return DatasetImage(
        id=new_id("img"), dataset_id=dataset_id, split="train", position=0, path="a.jpg", identity="1", camera="1"
    )


def _count(database: Database, table: type[Job | DatasetImage | JobDataset | Model]) -> int | None:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def _stored_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
