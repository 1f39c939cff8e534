"""The images of a gallery that a batch of searches asks by, looked up together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, or_, select

from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.search.schemas import Query, StoredQuery
from service.search.snapshots import OpenGallery

_OWN = select(GalleryImage.id).where(
    GalleryImage.gallery_id == bindparam("gallery"), GalleryImage.id.in_(bindparam("ids", expanding=True))
)

_PLACES = (
    select(
        GalleryImage.id, GalleryImage.dataset_image_id, GalleryImage.position, GalleryImage.width, GalleryImage.height
    )
    .join(Gallery, Gallery.id == GalleryImage.gallery_id)
    .where(
        Gallery.id == bindparam("gallery"),
        Gallery.generation == bindparam("generation"),
        or_(
            GalleryImage.id.in_(bindparam("ids", expanding=True)),
            GalleryImage.dataset_image_id.in_(bindparam("ids", expanding=True)),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """The position of an image in a gallery, its width and height, and whether it was asked by as this gallery's."""

    position: int
    size: tuple[int, int]
    is_own: bool


def asked_by(queries: Sequence[Query]) -> set[str]:
    """The ids of the stored images among the queries."""
    return {query.image_id for query in queries if isinstance(query, StoredQuery)}


def find_own(database: Database, gallery_id: str, ids: Collection[str]) -> set[str]:
    """Those of the images that are the gallery's own."""
    if not ids:
        return set()
    with database.look() as connection:
        return set(connection.scalars(_OWN, {"gallery": gallery_id, "ids": list(ids)}))


def find_places(database: Database, gallery_id: str, opened: OpenGallery, ids: Collection[str]) -> dict[str, Place]:
    """The places in the gallery of these images, those of data sets included, by the id asked for."""
    if not ids:
        return {}
    parameters = {"gallery": gallery_id, "generation": opened.generation, "ids": list(ids)}
    with database.look() as connection:
        rows = connection.execute(_PLACES, parameters).all()
    return {
        (row.id if row.id in ids else row.dataset_image_id): Place(row.position, (row.width, row.height), row.id in ids)
        for row in rows
        if row.position < len(opened.snapshot)
    }


def left_out(query: Query, places: Mapping[str, Place]) -> int | None:
    """The position of the query's own image, if that is to be left out."""
    if not isinstance(query, StoredQuery) or not query.exclude_self or query.image_id not in places:
        return None
    return places[query.image_id].position
