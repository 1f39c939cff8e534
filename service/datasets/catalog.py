"""The rows of data sets: adding and withdrawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from reid_core.errors import Fault
from service.datasets import uploads
from service.datasets.bodies import UploadBody
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.schema import upgrade
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage, Job, JobDataset
from service.deletion import remove_later, remove_pending
from service.errors import Problem, not_found
from service.settings import Settings
from service.storage import resolve_data_path, stored_path


def find_folder(settings: Settings, path: str) -> Path:
    """The folder to register; raises 422 for one outside the data roots, a missing one and a file."""
    folder = resolve_data_path(path, settings.data_roots)
    if not folder.is_dir():
        message = f"{path!r} is a file, not a folder"
        raise Problem(
            "invalid-dataset",
            message,
            hint="register the folder that holds it; an archive is sent as multipart/form-data",
            errors=[Fault("/path", "not-a-folder", message)],
        )
    return folder


def add_dataset(
    session: Session, settings: Settings, body: UploadBody, folder: Path, dataset_id: str | None = None
) -> Dataset:
    """The new, pending row; with `dataset_id`, of an upload. Raises 409 `name-taken`."""
    dataset = Dataset(
        id=dataset_id or new_id("ds"),
        name=body.name,
        path=stored_path(folder, settings.bases),
        format=body.format,
        state="pending",
        uploaded=dataset_id is not None,
    )
    session.add(dataset)
    try:
        session.flush()
    except IntegrityError as error:
        raise _name_taken(body.name) from error
    return dataset


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
        # The lock keeps jobs from being added for it meanwhile; their rows refer to this one.
        locked = select(Dataset).where(Dataset.id == find(session, Dataset, key).id).with_for_update()
        dataset = session.scalars(locked).one_or_none()
        if dataset is None:
            raise not_found("data set", key)
        _refuse_if_used(session, dataset)
        remove_later(session, settings, uploads.paths_of(settings, dataset.id))
        session.execute(delete(Dataset).where(Dataset.id == dataset.id))
        audit.record(session, key_id=key_id, action="dataset.delete", target=dataset.id)
    remove_pending(database, settings)


def _refuse_if_used(session: Session, dataset: Dataset) -> None:
    if job := session.scalars(_jobs_in_need_of(dataset).limit(1)).first():
        raise Problem(
            "in-use",
            f"data set {dataset.name!r} is needed by {job.kind} job {job.id}, which is {job.state}",
            hint=f"wait for its end, or POST /jobs/{job.id}/cancel",
        )
    if gallery := session.scalars(_galleries_with(dataset).limit(1)).first():
        raise Problem(
            "in-use",
            f"gallery {gallery.name!r} ({gallery.id}) shows pictures of data set {dataset.name!r}",
            hint=f"DELETE /galleries/{gallery.id} first",
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
        f"there is a data set called {name!r} already",
        hint="choose another name, or delete that data set",
        errors=[Fault("/name", "taken", "the name is taken")],
    )
