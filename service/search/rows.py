"""The rows that a search needs, read as plain columns: a session's objects would take as long as the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, or_, select

from reid_core.data.labels import normal_label
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage, Model


@dataclass(frozen=True, slots=True)
class SearchedGallery:
    """The columns of a gallery that searches need, and the size of its model's embeddings, as of one moment."""

    id: str
    name: str
    revision: int
    images: int
    model_id: str
    reranker_id: str | None
    maps: dict[str, Any] | None
    embedding_size: int


@dataclass(frozen=True, slots=True)
class FoundImage:
    """The columns of an image that answers show."""

    id: str
    gallery_id: str
    position: int
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    external_id: str | None
    width: int
    height: int
    file: str | None
    dataset_image_id: str | None


_GALLERY = (
    select(
        Gallery.id,
        Gallery.name,
        Gallery.revision,
        Gallery.images,
        Gallery.model_id,
        Gallery.reranker_id,
        Gallery.maps,
        Model.embedding_size,
    )
    .join(Model, Model.id == Gallery.model_id)
    .where(or_(Gallery.id == bindparam("key"), Gallery.name == bindparam("key")), Gallery.deleted_at.is_(None))
)

_IMAGES = (
    select(*(getattr(GalleryImage, name) for name in FoundImage.__dataclass_fields__))
    .join(Gallery, Gallery.id == GalleryImage.gallery_id)
    .where(
        Gallery.id == bindparam("gallery"),
        Gallery.generation == bindparam("generation"),
        Gallery.deleted_at.is_(None),
        GalleryImage.position.in_(bindparam("positions", expanding=True)),
    )
)


def find_gallery(database: Database, key: str) -> SearchedGallery:
    """The gallery by its id or name, as `service.db.lookup.find` finds it; raises the 404 problem."""
    with database.look() as connection:
        rows = [SearchedGallery(*row) for row in connection.execute(_GALLERY, {"key": normal_label(key)})]
    if not rows:
        with database.read() as session:
            find(session, Gallery, key)  # which says what there is
    return min(rows, key=lambda row: row.id != key)


def find_images(database: Database, gallery_id: str, generation: int, positions: Sequence[int]) -> list[FoundImage]:
    """The images at `positions` of that generation of the gallery; none where it has another one by now."""
    parameters = {"gallery": gallery_id, "generation": generation, "positions": list(positions)}
    with database.look() as connection:
        return [FoundImage(*row) for row in connection.execute(_IMAGES, parameters)]
