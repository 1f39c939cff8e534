"""The journal of searches: each is in a file before it is answered, and in the audit log a moment later.

So no search waits for the database's write lock, which a deletion or an upload may hold, and a process that is killed
loses none that it has answered: whoever starts next reads what it left. A power cut may take the last ones, as it may
take the last transactions of SQLite.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import AuditEntry, Gallery
from service.settings import Settings
from service.storage import claim

logger = logging.getLogger(__name__)

ACTION = "search"
_SECONDS = 0.25
"""Time that entries gather for one transaction."""

_RETRY_SECONDS = 5.0

_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """A search: `at` is its time in ISO 8601."""

    at: str
    key_id: str | None
    gallery: str
    search_id: str

    def row(self) -> AuditEntry:
        """The entry's row in the audit log."""
        return AuditEntry(
            at=datetime.fromisoformat(self.at),
            key_id=self.key_id,
            action=ACTION,
            target=self.gallery,
            detail={"search_id": self.search_id},
        )


class _Page:
    """A file of the journal, and what stands in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        self.entries: list[Entry] = []
        self._file = self.path.open("xb", buffering=0)
        self._end = 0

    def add(self, entry: Entry) -> None:
        """Writes the entry, whole or not at all; raises OSError where the disk is full."""
        line = json.dumps(asdict(entry)).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._end += written
        self.entries.append(entry)

    def close(self) -> None:
        self._file.close()


class SearchJournal:
    """The journal of one process; any number of threads may note searches. Made by `keeping_journal`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._noting, self._writing = threading.Lock(), threading.Lock()
        self._page: _Page | None = None
        self._full: deque[_Page] = deque()
        self._something, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def note(self, *, key_id: str | None, gallery: str, search_id: str) -> None:
        """Keeps that the search is being answered; raises OSError where the disk is full."""
        entry = Entry(utc_now().isoformat(), key_id, gallery, search_id)
        with self._noting:
            if self._page is None:
                self._page = _Page(self._folder)
            self._page.add(entry)
        self._something.set()

    def flush(self) -> None:
        """Returns once all that was noted is in the audit log; raises OperationalError where that cannot be written."""
        with self._writing:
            with self._noting:
                if self._page is not None:
                    self._full.append(self._page)
                    self._page = None
            while self._full:
                page = self._full[0]
                with self._database.write() as session:
                    _insert(session, page.entries)
                page.close()
                page.path.unlink()
                self._full.popleft()

    def close(self) -> None:
        """Ends the thread and writes what is left."""
        self._over.set()
        self._something.set()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._over.is_set():
            self._something.wait()
            self._something.clear()
            self._over.wait(_SECONDS)
            try:
                self.flush()
            except OperationalError as error:
                logger.warning("searches cannot be written into the audit log, trying again: %s", error)
                self._something.set()
                self._over.wait(_RETRY_SECONDS)


@contextmanager
def keeping_journal(database: Database, settings: Settings) -> Iterator[SearchJournal]:
    """The journal of this process; what is noted in it is written at the end of the block."""
    folder = settings.journals_dir / secrets.token_hex(8)
    with claim(folder):
        journal = SearchJournal(database, folder)
        try:
            yield journal
        finally:
            journal.close()


def recover(database: Database, settings: Settings) -> None:
    """Writes what killed processes have noted and not written."""
    for folder in sorted(settings.journals_dir.glob("[0-9a-f]*")):
        with claim(folder) as left:
            if left:
                for path in folder.glob(f"*{_SUFFIX}"):
                    with database.write() as session:
                        _insert(session, _unwritten(session, _read(path)))


def _insert(session: Session, entries: Sequence[Entry]) -> None:
    """Adds the entries to the audit log, and tells their galleries when they were last searched."""
    session.add_all(entry.row() for entry in entries)
    for gallery, at in {entry.gallery: entry.at for entry in entries}.items():
        moment = datetime.fromisoformat(at)
        session.execute(update(Gallery).where(Gallery.id == gallery).values(searched_at=moment))


def _unwritten(session: Session, entries: Sequence[Entry]) -> list[Entry]:
    """Those of a page that are not in the audit log: its process may have been killed after it had written them."""
    times = [datetime.fromisoformat(entry.at) for entry in entries]
    if not times:
        return []
    there = select(AuditEntry.detail).where(
        AuditEntry.action == ACTION, AuditEntry.at >= min(times), AuditEntry.at <= max(times)
    )
    written = {detail.get("search_id") for detail in session.scalars(there)}
    return [entry for entry in entries if entry.search_id not in written]


def _read(path: Path) -> list[Entry]:
    return list(_entries(path.read_bytes().splitlines(keepends=True)))


def _entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The whole lines; a last one that was cut short was of a search that nobody was answered."""
    for line in lines:
        if line.endswith(b"\n"):
            yield Entry(**json.loads(line))
