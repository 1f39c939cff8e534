"""Galleries over the API: make, look, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.dependencies import (
    DatabaseDep,
    PageDep,
    SettingsDep,
    accepted,
    prefix_of,
    require,
)
from service.api.openapi import problems
from service.api.pagination import list_page
from service.auth import Caller
from service.db import audit
from service.db.lookup import find
from service.db.tables import Gallery
from service.galleries.deletion import AT_ONCE, mark_deleted, try_to_finish
from service.galleries.lifecycle import create_gallery, find_split
from service.galleries.schemas import GalleryAnswer, GalleryBody
from service.jobs import enqueue
from service.jobs.deletions import enqueue_deletion
from service.schemas import Listing

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]
Eraser = Annotated[Caller, require("erase")]


@router.post(
    "",
    status_code=201,
    responses={
        202: {"description": "A job adds the data set's images.", "model": GalleryAnswer},
        **problems(404),
    },
)
def make_gallery(
    body: GalleryBody,
    request: Request,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
) -> GalleryAnswer:
    """Make a gallery. With `dataset` it is filled by the job that the answer names."""
    prefix = prefix_of(request)
    with database.write() as session:
        gallery = create_gallery(session, settings, body)
        audit.record(session, key_id=caller.key_id, action="gallery.create", target=gallery.id)
        if body.dataset is not None:
            enqueue_split(session, gallery, body.dataset.id, body.dataset.split)
        answer = GalleryAnswer.of(session, gallery, prefix)
    if body.dataset is not None:
        request.app.state.send(answer.job, "index")
        return accepted(response, answer, answer.links.self)
    response.headers["Location"] = answer.links.self
    return answer


@router.get("")
def list_galleries(request: Request, database: DatabaseDep, page: PageDep, _caller: Reader) -> Listing[GalleryAnswer]:
    """Galleries, newest first."""
    prefix = prefix_of(request)
    with database.read() as session:
        return list_page(
            session,
            select(Gallery).where(Gallery.deleted_at.is_(None)),
            Gallery.id,
            page,
            answer_of=lambda gallery: GalleryAnswer.of(session, gallery, prefix),
            newest_first=True,
        )


@router.get("/{gallery_id}")
def read_gallery(gallery_id: str, request: Request, database: DatabaseDep, _caller: Reader) -> GalleryAnswer:
    """One gallery, by id or name."""
    with database.read() as session:
        return GalleryAnswer.of(session, find(session, Gallery, gallery_id), prefix_of(request))


@router.delete("/{gallery_id}", status_code=204)
def remove_gallery(
    gallery_id: str,
    request: Request,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Eraser,
) -> None:
    """Delete a gallery with its images, vectors and rows: nobody finds it any more once this is answered.

    Of a large one they are removed by a job, which `Location` names.
    """
    with database.write() as session:
        gallery = mark_deleted(session, gallery_id, key_id=caller.key_id)
        job = enqueue_deletion(session, gallery.id) if gallery.images > AT_ONCE else None
    if job is None:
        try_to_finish(database, settings, gallery.id)
    else:
        request.app.state.send(job.id, job.kind)
        response.headers["Location"] = f"{prefix_of(request)}/jobs/{job.id}"


def enqueue_split(session: Session, gallery: Gallery, dataset_key: str, split: str) -> None:
    """Starts the job that adds the split, in the transaction of `session`."""
    dataset = find_split(session, dataset_key, split)
    spec = {"gallery": gallery.id, "add": {"dataset": dataset.id, "split": split}}
    enqueue(session, "index", spec, datasets=[dataset.id])
