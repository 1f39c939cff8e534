"""Comparing a data set's files with those that were registered, before anything is built on them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.data.findings import finding_of, replace_finding
from reid_core.errors import Fault, ImageError
from service.datasets.files import dataset_folder
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage
from service.errors import Problem
from service.settings import Settings

_THREADS = 4
_CHUNK = 256
_NAMED = 5
_LISTED = 1000

Change = tuple[str, str]
"""A change of a file: `missing`, `cut short` or `changed`, and its path in the data set."""


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """A file's path in its data set, and what it was; None where an earlier version did not keep that."""

    path: str
    sha256: str | None
    num_bytes: int | None


def check_files(
    database: Database,
    settings: Settings,
    dataset_id: str,
    splits: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Reads every file of the splits.

    Raises:
        Problem: `invalid-dataset` if one is not what was registered, all of them counted and named; the data set's
            report has them as a finding from then on.
    """
    with database.read() as session:
        dataset = session.get_one(Dataset, dataset_id)
        files = registered_files(session, dataset_id, splits)
    changes = find_changes(files, dataset_folder(settings, dataset), on_progress=on_progress)
    if changes:
        _note(database, dataset_id, changes)
        raise changed_files("invalid-dataset", dataset, changes)


def registered_files(session: Session, dataset_id: str, splits: Sequence[str]) -> list[RegisteredFile]:
    """The files of the data set's splits as they were when it was read."""
    columns = (DatasetImage.path, DatasetImage.sha256, DatasetImage.num_bytes)
    of_splits = (DatasetImage.dataset_id == dataset_id, DatasetImage.split.in_(splits))
    rows = session.execute(select(*columns).where(*of_splits).order_by(DatasetImage.id))
    return [RegisteredFile(*row) for row in rows]


def find_changes(
    files: Sequence[RegisteredFile],
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Change]:
    """The changes of the files below `folder` since they were registered, in the files' order."""
    changes: list[Change] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _CHUNK):
            if start:  # a small data set is done in a moment
                on_progress(start, len(files))
            chunk = files[start : start + _CHUNK]
            outcomes = pool.map(partial(_change, folder), chunk)
            changes += [(what, file.path) for what, file in zip(outcomes, chunk, strict=True) if what]
    return changes


def changed_files(slug: str, dataset: Dataset, changes: Sequence[Change]) -> Problem:
    """The problem of a data set whose files have changed."""
    counts = Counter(what for what, _ in changes)
    named = {what: [path for other, path in changes if other == what][:_NAMED] for what in counts}
    counted = "; ".join(
        f"{count} {what}: {', '.join(named[what])}" + (f" and {count - _NAMED} more" if count > _NAMED else "")
        for what, count in counts.items()
    )
    return Problem(
        slug,
        f"The files of data set {dataset.name!r} are not those that were registered: {counted}.",
        hint=f"Put them back, or POST /datasets/{dataset.id}/rescan to read them as they are.",
        errors=[Fault("/dataset", what.replace(" ", "-"), f"{path} is {what}") for what, path in changes[:_LISTED]],
    )


@contextmanager
def as_dataset_problem(names: Sequence[str]) -> Iterator[None]:
    """Turns an image that cannot be read any more, after it was checked, into a problem of the data sets so called."""
    try:
        yield
    except ImageError as error:
        raise Problem(
            "invalid-dataset",
            f"A file of {', '.join(names)} has changed since the job began: {error.detail}",
            hint="Put it back and POST /jobs/{id}/resume, or POST /datasets/{id}/rescan to read it as it is.",
        ) from error


def _change(folder: Path, file: RegisteredFile) -> str:
    """The change of the file in a word, or ""."""
    path = folder / file.path
    try:
        if not path.is_file():
            return "missing"
        size = path.stat().st_size
        if file.num_bytes is not None and size != file.num_bytes:
            return "cut short" if size < file.num_bytes else "changed"
        if file.sha256 is None:
            return ""
        with path.open("rb") as content:
            return "" if hashlib.file_digest(content, "sha256").hexdigest() == file.sha256 else "changed"
    except OSError:
        return "missing"


def _note(database: Database, dataset_id: str, changes: Sequence[Change]) -> None:
    finding = finding_of("changed-files", [f"{path}: {what}" for what, path in changes])
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        if dataset.report is not None:
            dataset.report = replace_finding(dataset.report, asdict(finding))
