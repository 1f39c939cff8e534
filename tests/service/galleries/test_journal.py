"""Searches wait for no writer, and the audit log loses none that was answered."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import AuditEntry, Gallery
from service.search.journal import SearchJournal, keeping_journal, recover
from service.settings import Settings
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload
from tests.waiting import wait_until

CHILD = """
import sys
from service.db.session import open_database
from service.search.journal import keeping_journal
from service.settings import Settings
settings = Settings(home=sys.argv[1])
database = open_database(settings.database_url)
with keeping_journal(database, settings) as journal, database.write():  # nothing can be written into the audit log
    number = 0
    while True:
        journal.note(key_id=None, gallery="gal_1", search_id=f"search_{number}")
        print(number, flush=True)
        number += 1
"""


def searches(database: Database) -> list[str]:
    with database.read() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.action == "search").order_by(AuditEntry.id)).all()
    return [row.detail["search_id"] for row in rows]


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """The disk has no room for a file of more bytes; the beginning of what is written is still taken."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def note(journal: SearchJournal, number: int) -> None:
    journal.note(key_id="key_1", gallery="gal_1", search_id=f"search_{number}")


@pytest.mark.usefixtures("model")
def test_a_search_does_not_wait_for_a_writer(client: httpx.Client, database: Database) -> None:
    make_gallery(client)
    (first,) = added_ids(upload(client, "hall", [image_file(1)]))
    with database.write():
        answer = client.get("/search", params={"gallery": "hall", "image_id": first, "exclude_self": False})
        assert answer.status_code == 200
        assert searches(database) == []
    entry = client.get("/audit?action=search").json()["items"][0]
    assert entry["detail"] == {"search_id": answer.json()["search_id"]}
    with database.read() as session:
        gallery = session.scalars(select(Gallery)).one()
    assert gallery.searched_at is not None
    assert gallery.searched_at <= utc_now()


def test_entries_are_written_by_themselves_and_in_their_order(database: Database, settings: Settings) -> None:
    with keeping_journal(database, settings) as journal:
        for number in range(50):
            note(journal, number)
        wait_until(lambda: len(searches(database)) == 50)
        note(journal, 50)
    assert searches(database) == [f"search_{number}" for number in range(51)]
    assert list(settings.journals_dir.glob("*/*")) == []


def test_a_killed_process_loses_nothing_that_was_answered(database: Database, settings: Settings) -> None:
    command = [sys.executable, "-c", CHILD, str(settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        said = [*lines, *child.stdout.read().splitlines(keepends=True)]
    answered = [int(line) for line in said if line.endswith("\n")]
    recover(database, settings)
    written = searches(database)
    assert written[: len(answered)] == [f"search_{number}" for number in answered]
    assert len(written) <= len(answered) + 1, "one may have been noted that was not said any more"
    assert list(settings.journals_dir.iterdir()) in ([], [settings.journals_dir / ".lock"])
    recover(database, settings)
    assert searches(database) == written


def test_what_was_written_before_the_process_died_comes_once(database: Database, settings: Settings) -> None:
    with keeping_journal(database, settings) as journal:
        for number in range(3):
            note(journal, number)
        (page,) = settings.journals_dir.glob("*/*.jsonl")
        content = page.read_bytes()
    left = settings.journals_dir / "0123456789abcdef"
    left.mkdir()
    late = content.splitlines(keepends=True)[-1].replace(b"search_2", b"search_3")
    (left / "page.jsonl").write_bytes(content + late + b'{"at": "2026-01-0')
    recover(database, settings)
    assert searches(database) == ["search_0", "search_1", "search_2", "search_3"]


def test_what_a_living_process_notes_is_left_to_it(database: Database, settings: Settings) -> None:
    with keeping_journal(database, settings) as journal, database.write():
        note(journal, 1)
        recovering = threading.Thread(target=recover, args=(database, settings))
        recovering.start()
        recovering.join()
        assert len(list(settings.journals_dir.glob("*/*.jsonl"))) == 1
    assert searches(database) == ["search_1"]


def test_a_full_disk_is_told_and_tears_nothing(database: Database, settings: Settings) -> None:
    with keeping_journal(database, settings) as journal:
        note(journal, 1)
        (page,) = settings.journals_dir.glob("*/*.jsonl")
        with no_file_over(page.stat().st_size + 10), pytest.raises(OSError, match="No space left"):
            note(journal, 2)
        note(journal, 3)
    assert searches(database) == ["search_1", "search_3"]
