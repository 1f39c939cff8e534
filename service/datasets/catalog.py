"""The rows of data sets: adding and withdrawing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from reid_core.data.declaration import TABLE_SUFFIXES
from reid_core.data.records import SPLITS
from reid_core.errors import Fault
from service.datasets import uploads
from service.datasets.checking import changed_files, find_changes, registered_files
from service.datasets.readiness import dataset_state
from service.datasets.schemas import ReportAnswer, UploadBody
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.schema import upgrade
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage, Job, JobDataset
from service.deletion import remove_later, remove_pending
from service.errors import Problem, not_found, sentence
from service.settings import Settings
from service.storage import resolve_data_path, stored_path


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a data set: a folder, and in it the table that lists it, if that was named ("" otherwise)."""

    folder: Path
    table: str = ""


def find_place(settings: Settings, path: str) -> Place:
    """The place to register; raises 422 for one that is outside the data roots, missing, or no folder or table."""
    found = resolve_data_path(path, settings.data_roots)
    if found.is_dir():
        return Place(found)
    if found.suffix.lower() in TABLE_SUFFIXES:
        return Place(found.parent, found.name)
    message = f"{path!r} is a file, neither a folder nor a table ({', '.join(TABLE_SUFFIXES)})"
    raise Problem(
        "invalid-dataset",
        sentence(message),
        hint="Register the folder that holds it; an archive is sent as multipart/form-data.",
        errors=[Fault("/path", "not-a-folder", message)],
    )


def add_dataset(
    session: Session, settings: Settings, body: UploadBody, place: Place, dataset_id: str | None = None
) -> Dataset:
    """The new, pending row; with `dataset_id`, of an upload. Raises 409 `name-taken`.

    A data set whose registration has failed gives up the name and is called by its id besides.
    """
    declared = body.declared() | ({"table": place.table} if place.table else {})
    dataset = Dataset(
        id=dataset_id or new_id("ds"),
        name=body.name,
        path=stored_path(place.folder, settings.bases),
        format=body.format,
        declaration=declared or None,
        state="pending",
        uploaded=dataset_id is not None,
    )
    if namesake := require_free_name(session, body.name):
        namesake.name = f"{namesake.name} ({namesake.id})"
        session.flush()
    session.add(dataset)
    try:
        session.flush()
    except IntegrityError as error:
        raise _name_taken(body.name) from error
    return dataset


def require_free_name(session: Session, name: str) -> Dataset | None:
    """The data set that has the name and gives it up, as its registration has failed; raises 409 `name-taken`."""
    namesake = session.scalar(select(Dataset).where(Dataset.name == name))
    if namesake is not None and dataset_state(session, namesake)[0] != "invalid":
        raise _name_taken(name)
    return namesake


def read_report(session: Session, dataset: Dataset) -> ReportAnswer:
    """The report on the data set; raises 409 where there is none, yet or at all."""
    state, error = dataset_state(session, dataset)
    if dataset.report is None or state == "pending":
        raise Problem(
            "wrong-state",
            f"Data set {dataset.name!r} is {state} and has no report" + (f": {error['detail']}" if error else "."),
            hint="Try again when its state is ready." if state == "pending" else (error or {}).get("hint", ""),
        )
    return ReportAnswer(dataset=dataset.id, name=dataset.name, **dataset.report)


def rescan_dataset(session: Session, key: str) -> Dataset:
    """The data set, pending again; raises 404, and 409 while it is read or a job needs it."""
    dataset = _locked(session, key)
    if dataset_state(session, dataset)[0] == "pending":
        raise Problem(
            "wrong-state", f"Data set {dataset.name!r} is being read just now.", hint="Wait until it is ready."
        )
    _refuse_while_needed(session, dataset)
    dataset.state, dataset.error = "pending", None
    return dataset


def move_dataset(database: Database, settings: Settings, key: str, path: str, *, key_id: str | None) -> str:
    """The id of the data set, whose files are read from `path` from now on.

    Raises:
        Problem: 404; 409 `wrong-state` unless it is ready and was not uploaded; 409 `files-differ` where not all of its
            files lie there as they were registered; 422 for an impossible path.
    """
    place = find_place(settings, path)
    with database.read() as session:
        dataset = find(session, Dataset, key)
        is_ready = dataset_state(session, dataset)[0] == "ready"
        files = registered_files(session, dataset.id, SPLITS)
    if dataset.uploaded or not is_ready:
        reason = "was uploaded, and the service keeps its files" if dataset.uploaded else "is not ready"
        raise Problem(
            "wrong-state", f"Data set {dataset.name!r} {reason}.", hint="Move one that was registered by path."
        )
    table = (dataset.declaration or {}).get("table", "")
    if table and place.table not in ("", table):
        raise Problem("files-differ", f"Data set {dataset.name!r} is listed in {table}, not in {place.table}.")
    changes = find_changes(files, place.folder)
    if changes:
        raise changed_files("files-differ", dataset, changes)
    with database.write() as session:
        _locked(session, dataset.id).path = stored_path(place.folder, settings.bases)
        audit.record(session, key_id=key_id, action="dataset.move", target=dataset.id)
    return dataset.id


def bring_up_to_date(database: Database, settings: Settings) -> None:
    """Brings the schema to this version, and the rows to what the schema cannot tell of: paths that earlier versions
    kept absolute become relative to the home or a data root, so that those may move."""
    upgrade(settings.database_url)
    with database.read() as session:
        absolute = session.execute(select(Dataset.id, Dataset.path).where(Dataset.path.startswith("/"))).all()
    moved = {key: stored_path(Path(path), settings.bases) for key, path in absolute}
    changed = {key: moved[key] for key, path in absolute if moved[key] != path}
    if changed:
        with database.write() as session:
            for key, path in changed.items():
                session.execute(update(Dataset).where(Dataset.id == key).values(path=path))


def delete_dataset(database: Database, settings: Settings, key: str, *, key_id: str | None) -> None:
    """Removes the data set and, if it was uploaded, its files; a folder read in place stays as it is.

    Raises 404, or 409 `in-use` while an unfinished job or a gallery needs it.
    """
    with database.write() as session:
        dataset = _locked(session, key)
        _refuse_if_used(session, dataset)
        remove_later(session, settings, uploads.paths_of(settings, dataset.id))
        session.execute(delete(Dataset).where(Dataset.id == dataset.id))
        audit.record(session, key_id=key_id, action="dataset.delete", target=dataset.id)
    remove_pending(database, settings)


def _refuse_if_used(session: Session, dataset: Dataset) -> None:
    _refuse_while_needed(session, dataset)
    if gallery := session.scalars(_galleries_with(dataset).limit(1)).first():
        raise Problem(
            "in-use",
            f"Gallery {gallery.name!r} ({gallery.id}) shows images of data set {dataset.name!r}.",
            hint=f"DELETE /galleries/{gallery.id} first.",
        )


def _locked(session: Session, key: str) -> Dataset:
    """The row; the lock keeps jobs from being added for it meanwhile, since their rows refer to this one."""
    locked = select(Dataset).where(Dataset.id == find(session, Dataset, key).id).with_for_update()
    dataset = session.scalars(locked).one_or_none()
    if dataset is None:
        raise not_found("data set", key)
    return dataset


def _refuse_while_needed(session: Session, dataset: Dataset) -> None:
    if job := session.scalars(_jobs_in_need_of(dataset).limit(1)).first():
        raise Problem(
            "in-use",
            f"Data set {dataset.name!r} is needed by {job.kind} job {job.id}, which is {job.state}.",
            hint=f"Wait for its end, or POST /jobs/{job.id}/cancel.",
        )


def _jobs_in_need_of(dataset: Dataset) -> Any:
    query = select(Job).join(JobDataset).where(JobDataset.dataset_id == dataset.id, Job.finished_at.is_(None))
    # A registration that has written its outcome needs nothing more, though its process ends a moment later.
    return query if dataset.state == "pending" else query.where(Job.kind != "register")


def _galleries_with(dataset: Dataset) -> Any:
    origin = select(DatasetImage.id).where(DatasetImage.dataset_id == dataset.id)
    images = select(GalleryImage.gallery_id).where(GalleryImage.dataset_image_id.in_(origin))
    return select(Gallery).where(Gallery.id.in_(images))


def _name_taken(name: str) -> Problem:
    return Problem(
        "name-taken",
        f"There is a data set called {name!r} already.",
        hint="Choose another name, or delete that data set.",
        errors=[Fault("/name", "taken", "the name is taken")],
    )
