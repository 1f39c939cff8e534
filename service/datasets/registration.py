"""Registration: what a `register` job does, from unpacking the archive to a row for every image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from reid_core.data.archive_names import with_archive_names
from reid_core.data.declaration import declaration_from_json
from reid_core.data.findings import finding_of, replace_finding
from reid_core.data.formats import PEOPLE
from reid_core.data.listing import real_path
from reid_core.data.reader import read
from reid_core.data.records import SPLITS, ImageRecord
from reid_core.data.report import Examination, examine
from reid_core.errors import CoreError, DatasetError, Stopped
from service.datasets import uploads
from service.datasets.files import dataset_folder
from service.datasets.schemas import BriefFinding
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage
from service.errors import problem_from_core
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
    """Reads the data set and records its images and report: `{dataset, format, splits, findings, ...}`.

    It may be run again after a crash, a stop or a failure, and starts from scratch; a data set that is ready stays as
    it is. `on_progress` hears of images examined and in all.

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
            uploads.unpack(settings, dataset_id, (dataset.declaration or {}).get("encoding", ""))
        examination = _examine(dataset, settings, on_progress, should_stop)
        changes = _write_images(database, settings, dataset, examination, should_stop)
        _finish(database, dataset, examination, changes)
    except CoreError as error:
        _refuse(database, dataset_id, error)
        raise
    with database.read() as session:
        return _result(find(session, Dataset, dataset_id))


def _begin(database: Database, dataset_id: str) -> Dataset:
    """The row, pending again unless it is ready; images of an earlier reading stay until there are new ones."""
    with database.write() as session:
        dataset = find(session, Dataset, dataset_id)
        if dataset.state != "ready":
            dataset.state = "pending"
            dataset.detected_format = dataset.variant = dataset.fingerprint = None
            dataset.splits = dataset.report = dataset.error = None
        return dataset


def _examine(
    dataset: Dataset,
    settings: Settings,
    on_progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool],
) -> Examination:
    declared, folder = dataset.declaration or {}, dataset_folder(settings, dataset)
    contents = read(folder / declared.get("table", ""), dataset.format, declaration_from_json(declared))
    if dataset.uploaded:
        contents = with_archive_names(contents, folder)
    examination = examine(
        contents,
        max_pixels=settings.max_image_pixels,
        threads=settings.threads or os.cpu_count() or 1,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if examination is None:
        raise Stopped
    return examination


def _write_images(
    database: Database, settings: Settings, dataset: Dataset, examination: Examination, should_stop: Callable[[], bool]
) -> list[str]:
    """A row per image; what has changed since an earlier reading, whose images keep their ids.

    The first reading writes in many transactions, so that others may write in between; a later one in a single one,
    since galleries refer to these rows.
    """
    with database.read() as session:
        earlier = _earlier_rows(session, dataset.id)
    rows = list(_rows(settings, dataset, examination, {place: key for place, (key, _) in earlier.items()}))
    parts = [rows[start : start + _ROWS_PER_STATEMENT] for start in range(0, len(rows), _ROWS_PER_STATEMENT)]
    if not earlier:
        for part in parts:
            if should_stop():
                raise Stopped
            with database.write() as session:
                session.execute(insert(DatasetImage), part)
        return []
    with database.write() as session:
        session.execute(delete(DatasetImage).where(DatasetImage.dataset_id == dataset.id))
        for part in parts:
            session.execute(insert(DatasetImage), part)
    return _changes({path: sha256 for (_, path), (_, sha256) in earlier.items()}, rows)


def _earlier_rows(session: Session, dataset_id: str) -> dict[tuple[str, str], tuple[str, str | None]]:
    """(split, path) -> (id, hash) of the images that are recorded already."""
    columns = (DatasetImage.split, DatasetImage.path, DatasetImage.id, DatasetImage.sha256)
    rows = session.execute(select(*columns).where(DatasetImage.dataset_id == dataset_id))
    return {(split, path): (key, sha256) for split, path, key, sha256 in rows}


def _changes(earlier: Mapping[str, str | None], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The files of an earlier reading that are gone or hold something else now, in words."""
    now = {row["path"]: row["sha256"] for row in rows}
    changes = {
        path: "missing" if path not in now else "changed" for path, sha256 in earlier.items() if now.get(path) != sha256
    }
    return [f"{path}: {what}" for path, what in sorted(changes.items())]


def _rows(
    settings: Settings, dataset: Dataset, examination: Examination, known: Mapping[tuple[str, str], str]
) -> Iterator[dict[str, Any]]:
    """The rows to write; `known` are ids by split and path."""
    folder, images = real_path(dataset_folder(settings, dataset)), examination.contents.images
    ids = iter(new_ids("img", sum(map(len, images.values()))))
    for split in SPLITS:
        for position, image in enumerate(images[split]):
            file, path = examination.files[image.path], _below(folder, image)
            yield {
                "id": known.get((split, path)) or next(ids),
                "dataset_id": dataset.id,
                "split": split,
                "position": position,
                "path": path,
                "identity": image.identity,
                "camera": image.camera,
                "captured_at": image.captured_at,
                "frame": image.frame,
                "clothes": image.clothes or None,
                "sha256": file.sha256,
                "num_bytes": file.num_bytes,
                "width": file.width,
                "height": file.height,
            }


def _below(folder: Path, image: ImageRecord) -> str:
    # A manifest may name an image by an absolute path, which links lead into the folder.
    path = image.path if image.path.is_relative_to(folder) else real_path(image.path)
    return path.relative_to(folder).as_posix()


def _finish(database: Database, dataset: Dataset, examination: Examination, changes: Sequence[str]) -> None:
    """Records the outcome: ready, or an error with the report that explains it.

    Raises:
        DatasetError: a finding says that the data set is of no use.
    """
    report, summary = examination.report, examination.report.as_json()
    if changes:
        summary = replace_finding(summary, asdict(finding_of("changed-files", changes)))
    error = next((finding for finding in report.findings if finding.severity == "error"), None)
    with database.write() as session:
        session.execute(
            update(Dataset)
            .where(Dataset.id == dataset.id)
            .values(
                state="pending" if error else "ready",
                declaration=_kept(dataset, examination),
                detected_format=report.format,
                variant=report.variant or None,
                splits={split: asdict(counts) for split, counts in report.splits.items()},
                fingerprint=report.fingerprint,
                report=summary,
            )
        )
    if error:
        raise DatasetError(f"{error.detail} Found: {'; '.join(error.samples)}.", hint=error.fix)


def _kept(dataset: Dataset, examination: Examination) -> dict[str, Any] | None:
    """The declaration with the people whom a drawn split trains on, so that they train again at another reading."""
    if examination.report.format != PEOPLE.name:
        return dataset.declaration
    earlier = set((dataset.declaration or {}).get("trained", ()))
    trained = earlier | {image.identity for image in examination.contents.images["train"]}
    return {**(dataset.declaration or {}), "trained": sorted(trained)}


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
        "findings": [finding.model_dump() for finding in BriefFinding.all_of(report)],
    }
