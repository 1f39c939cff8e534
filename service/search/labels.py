"""The people of a gallery, by the labels of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, func, select

from reid_core.data.records import DISTRACTOR
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.identities import NOBODY
from service.search.snapshots import OpenGallery

_IMAGES = (
    select(GalleryImage.position, GalleryImage.identity)
    .join(Gallery, Gallery.id == GalleryImage.gallery_id)
    .where(GalleryImage.gallery_id == bindparam("gallery"), Gallery.generation == bindparam("generation"))
)
_AT = _IMAGES.where(GalleryImage.position.in_(bindparam("positions", expanding=True)))
_COUNTS = select(func.count(GalleryImage.identity.distinct()).filter(~NOBODY), func.count().filter(NOBODY)).where(
    GalleryImage.gallery_id == bindparam("gallery")
)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled images of a gallery, those of a person together.

    Attributes:
        positions: (N,) of the images.
        people: (N,) codes of their people, rising from 0.
        unlabelled: number of the gallery's other images.
    """

    positions: NDArray[np.int64]
    people: NDArray[np.int64]
    unlabelled: int

    @property
    def num_people(self) -> int:
        return int(self.people[-1]) + 1 if len(self.people) else 0

    @cached_property
    def person_at(self) -> dict[int, int]:
        """The person's code at each position."""
        return dict(zip(self.positions.tolist(), self.people.tolist(), strict=True))


def count_people(database: Database, gallery_id: str) -> int:
    """The number of people in the gallery; an image without an identity, or of `0000`, counts as one of its own."""
    with database.look() as connection:
        people, unlabelled = connection.execute(_COUNTS, {"gallery": gallery_id}).one()
    return int(people + unlabelled)


def read_labels(
    database: Database, gallery_id: str, opened: OpenGallery, positions: Sequence[int] | None = None
) -> Labels | None:
    """The labels of the snapshot's images, all or those at `positions`; None where the gallery was rebuilt since."""
    with database.look() as connection:
        rows = _read(connection, gallery_id, opened, positions)
        generation = connection.execute(select(Gallery.generation).where(Gallery.id == gallery_id)).scalar()
    if generation != opened.generation:
        return None
    alive = opened.snapshot.alive
    rows = [(place, name) for place, name in rows if place < len(alive) and alive[place]]
    labelled = sorted((name, place) for place, name in rows if name not in (None, DISTRACTOR))
    codes: dict[str, int] = {}
    people = [codes.setdefault(name, len(codes)) for name, _ in labelled]
    places = np.array([place for _, place in labelled], np.int64)
    return Labels(places, np.array(people, np.int64), len(rows) - len(labelled))


def _read(
    connection: Connection, gallery_id: str, opened: OpenGallery, positions: Sequence[int] | None
) -> list[tuple[int, str | None]]:
    values = {"gallery": gallery_id, "generation": opened.generation}
    if positions is None:
        return [(place, name) for place, name in connection.execute(_IMAGES, values)]
    return [(place, name) for place, name in connection.execute(_AT, {**values, "positions": list(positions)})]
