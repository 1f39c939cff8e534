"""Trained models as the service shows them: their rows and the files in their folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, Job, Model
from service.deletion import remove_later, remove_pending
from service.errors import Problem, not_found
from service.settings import Settings


def describe_file(path: Path) -> dict[str, Any]:
    """The size and SHA-256 of a file, as a model's row keeps them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def check_name_is_free(session: Session, name: str | None) -> None:
    """Raises the 409 problem when a model has the name or an unfinished job will give it to one. None is free."""
    if name is None:
        return
    taken_by_model = session.scalar(select(Model.id).where(Model.name == name))
    unfinished = session.scalars(select(Job).where(Job.finished_at.is_(None)))
    taken_by_job = next((job.id for job in unfinished if job.spec.get("model_name") == name), None)
    if taken := taken_by_model or taken_by_job:
        raise Problem(
            "name-taken",
            f"The model name {name!r} belongs to {taken}.",
            hint="Choose another name, or rename or delete that one.",
        )


def rename_model(session: Session, key: str, name: str) -> Model:
    """The model under its new name; raises 404, or 409 where the name is taken."""
    model = find(session, Model, key)
    model.name = name
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem("name-taken", f"There is a model called {name!r} already.") from error
    return model


def delete_model(database: Database, settings: Settings, key: str, *, key_id: str | None) -> None:
    """Removes the model, its evaluations and its files; raises 404, or 409 while a gallery or a job needs it."""
    with database.write() as session:
        model = find(session, Model, key)
        if users := [*_galleries(session, model), *_jobs(session, model)]:
            raise Problem(
                "in-use", f"Model {model.name!r} is used by {', '.join(users)}.", hint="Delete or cancel those first."
            )
        audit.record(session, key_id=key_id, action="model.delete", target=model.id)
        remove_later(session, settings, [settings.models_dir / model.id])
        session.delete(model)
    remove_pending(database, settings)


def model_file(session: Session, settings: Settings, key: str, name: str) -> tuple[Path, str]:
    """The path of one of the model's files and its SHA-256; raises 404 for any name that its row does not list."""
    model = find(session, Model, key)
    if name not in model.files:
        raise not_found("file of this model", name, known=list(model.files))
    path = settings.models_dir / model.id / name
    if not path.is_file():
        raise Problem("not-found", f"File {name!r} of model {model.name!r} is gone from its folder.")
    return path, model.files[name]["sha256"]


def _galleries(session: Session, model: Model) -> list[str]:
    users = select(Gallery).where(or_(Gallery.model_id == model.id, Gallery.reranker_id == model.id))
    return [
        f"gallery {gallery.name!r}{', which is being deleted' if gallery.deleted_at else ''}"
        for gallery in session.scalars(users.limit(5))
    ]


def _jobs(session: Session, model: Model) -> list[str]:
    """Unfinished jobs whose spec names the model: to evaluate it, to start from it, to learn from it."""
    unfinished = session.scalars(select(Job).where(Job.finished_at.is_(None)))
    return [f"job {job.id}" for job in unfinished if f'"{model.id}"' in json.dumps(job.spec)]
