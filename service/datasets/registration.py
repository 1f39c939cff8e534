"""Registration: what a `register` job does, from unpacking the archive to a row for every picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, update

from reid_core.data.listing import real_path
from reid_core.data.reader import read
from reid_core.data.records import SPLITS, Picture
from reid_core.data.report import Examination, Report, examine
from reid_core.errors import CoreError, DatasetError, Stopped
from service.datasets import uploads
from service.datasets.views import brief_findings
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage
from service.errors import problem_from_core
from service.pictures import dataset_folder
from service.settings import Settings

_ROWS_PER_STATEMENT = 5000


def register(
    database: Database,
    settings: Settings,
    dataset_id: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Reads the data set and records its pictures and report: `{dataset, format, splits, findings, ...}`.

    It may be run again after a crash, a stop or a failure, and starts from scratch; a data set that is ready stays as
    it is. `on_progress` hears of pictures examined and in all.

    Raises:
        CoreError: it cannot be used; the data set is now `invalid` and shows the same problem.
        Problem: 404, or `disk-full`.
        Stopped: `should_stop` said so.
    """
    dataset = _begin(database, dataset_id)
    if dataset.state == "ready":
        return _result(dataset)
    try:
        if dataset.uploaded:
            uploads.unpack(settings, dataset_id)
        examination = _examine(dataset, settings, on_progress, should_stop)
        _write_pictures(database, settings, dataset, examination, should_stop)
        _finish(database, dataset_id, examination.report)
    except CoreError as error:
        _refuse(database, dataset_id, error)
        raise
    with database.read() as session:
        return _result(find(session, Dataset, dataset_id))


def _begin(database: Database, dataset_id: str) -> Dataset:
    """The row, pending again and without the pictures that an earlier attempt wrote, unless it is ready."""
    with database.write() as session:
        dataset = find(session, Dataset, dataset_id)
        if dataset.state != "ready":
            dataset.state = "pending"
            dataset.detected_format = dataset.variant = dataset.fingerprint = None
            dataset.splits = dataset.report = dataset.error = None
            session.execute(delete(DatasetImage).where(DatasetImage.dataset_id == dataset_id))
        return dataset


def _examine(
    dataset: Dataset,
    settings: Settings,
    on_progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool],
) -> Examination:
    examination = examine(
        read(dataset_folder(settings, dataset), dataset.format),
        max_pixels=settings.max_image_pixels,
        threads=settings.threads or os.cpu_count() or 1,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if examination is None:
        raise Stopped
    return examination


def _write_pictures(
    database: Database, settings: Settings, dataset: Dataset, examination: Examination, should_stop: Callable[[], bool]
) -> None:
    """A row per picture, in many transactions, so that others may write in between."""
    rows = list(_rows(settings, dataset, examination))
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        if should_stop():
            raise Stopped
        with database.write() as session:
            session.execute(insert(DatasetImage), rows[start : start + _ROWS_PER_STATEMENT])


def _rows(settings: Settings, dataset: Dataset, examination: Examination) -> Iterator[dict[str, Any]]:
    folder, pictures = real_path(dataset_folder(settings, dataset)), examination.contents.pictures
    ids = iter(new_ids("img", sum(map(len, pictures.values()))))
    for split in SPLITS:
        for position, picture in enumerate(pictures[split]):
            width, height = examination.sizes[picture.path]
            yield {
                "id": next(ids),
                "dataset_id": dataset.id,
                "split": split,
                "position": position,
                "path": _below(folder, picture),
                "identity": picture.identity,
                "camera": picture.camera,
                "captured_at": picture.captured_at,
                "frame": picture.frame,
                "sha256": examination.hashes[picture.path],
                "width": width,
                "height": height,
            }


def _below(folder: Path, picture: Picture) -> str:
    # A manifest may name a picture by an absolute path, which links lead into the folder.
    path = picture.path if picture.path.is_relative_to(folder) else real_path(picture.path)
    return path.relative_to(folder).as_posix()


def _finish(database: Database, dataset_id: str, report: Report) -> None:
    """Records the outcome: ready, or an error with the report that explains it.

    Raises:
        DatasetError: a finding says that the data set is of no use.
    """
    error = next((finding for finding in report.findings if finding.severity == "error"), None)
    with database.write() as session:
        session.execute(
            update(Dataset)
            .where(Dataset.id == dataset_id)
            .values(
                state="pending" if error else "ready",
                detected_format=report.format,
                variant=report.variant or None,
                splits={split: asdict(counts) for split, counts in report.splits.items()},
                fingerprint=report.fingerprint,
                report=report.as_json(),
            )
        )
    if error:
        raise DatasetError(f"{error.detail} Found: {'; '.join(error.samples)}.", hint=error.fix)


def _refuse(database: Database, dataset_id: str, error: CoreError) -> None:
    problem = problem_from_core(error).as_json(instance=f"/datasets/{dataset_id}")
    with database.write() as session:
        session.execute(update(Dataset).where(Dataset.id == dataset_id).values(state="invalid", error=problem))


def _result(dataset: Dataset) -> dict[str, Any]:
    report = dataset.report or {}
    return {
        "dataset": dataset.id,
        "format": dataset.detected_format,
        "splits": dataset.splits,
        "evaluable_queries": report["evaluable_queries"],
        "findings": brief_findings(report),
    }
