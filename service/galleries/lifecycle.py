"""Making and finding galleries, and the lock under which one changes."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.datasets.readiness import find_ready
from service.db.ids import new_id
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Gallery, Model
from service.errors import Problem, not_found
from service.galleries.schemas import GalleryBody
from service.settings import Settings


def create_gallery(session: Session, settings: Settings, body: GalleryBody) -> Gallery:
    """The new row, without images; raises 404 for an unknown model, 409 `name-taken`, 422 for a wrong re-ranker."""
    from service.galleries.rerankers import choose_reranker  # reads methods, and with them PyTorch

    model = find(session, Model, body.model)
    reranker, maps = choose_reranker(session, settings, model, body)
    gallery = Gallery(
        id=new_id("gal"),
        name=body.name,
        model_id=model.id,
        reranker_id=reranker.id if reranker else None,
        maps=maps,
        index_kind=body.index,
        keep_images=body.keep_images,
        retention_days=body.retention_days,
        # Set here and not by the column, so that the row can be shown before it is read back.
        revision=0,
        generation=0,
        next_position=0,
        images=0,
        deletions=0,
        edits=0,
    )
    session.add(gallery)
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem("name-taken", f"There is a gallery called {body.name!r} already.") from error
    return gallery


def find_split(session: Session, dataset_key: str, split: str) -> Dataset:
    """The data set, once it is ready and has images in `split`; raises 404, 409 or 422."""
    dataset = find_ready(session, dataset_key)
    of_split = select(DatasetImage.id).where(DatasetImage.dataset_id == dataset.id, DatasetImage.split == split)
    if session.scalar(of_split.limit(1)) is None:
        raise Problem(
            "invalid-dataset",
            f"Data set {dataset.name!r} has no images in split {split!r}.",
            hint=f"GET /datasets/{dataset.id} shows its splits.",
        )
    return dataset


def lock_gallery(session: Session, gallery_id: str) -> Gallery:
    """The gallery's row as it is now, which no other transaction changes until this one ends; raises 404 once it is
    deleted."""
    this = select(Gallery).where(Gallery.id == gallery_id, Gallery.deleted_at.is_(None))
    # A row that the session has read before it had the lock may be out of date.
    current = this.with_for_update().execution_options(populate_existing=True)
    gallery = session.scalars(current).one_or_none()
    if gallery is None:
        raise not_found("gallery", gallery_id)
    return gallery


def is_there(session: Session, gallery_id: str) -> bool:
    """True until the gallery is deleted."""
    this = select(Gallery.id).where(Gallery.id == gallery_id, Gallery.deleted_at.is_(None))
    return session.scalar(this) is not None
