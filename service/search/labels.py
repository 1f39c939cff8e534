"""The people of a gallery, by the labels of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, func, select

from reid_core.calibration.pairs import encode, encode_cameras
from reid_core.data.records import DISTRACTOR
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.identities import NOBODY
from service.search.snapshots import OpenGallery

_IMAGES = (
    select(GalleryImage.position, GalleryImage.identity, GalleryImage.camera)
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
        cameras: (N,) codes of their cameras, -1 for unknown ones.
        unlabelled: number of the gallery's other images.
    """

    positions: NDArray[np.int64]
    people: NDArray[np.int64]
    cameras: NDArray[np.int64]
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
    rows = [row for row in rows if row[0] < len(alive) and alive[row[0]]]
    labelled = sorted((name, place, camera or "") for place, name, camera in rows if name not in (None, DISTRACTOR))
    names, places, cameras = zip(*labelled, strict=True) if labelled else ((), (), ())
    return Labels(np.array(places, np.int64), encode(names), encode_cameras(cameras), len(rows) - len(labelled))


def _read(
    connection: Connection, gallery_id: str, opened: OpenGallery, positions: Sequence[int] | None
) -> list[tuple[int, str | None, str | None]]:
    values = {"gallery": gallery_id, "generation": opened.generation}
    if positions is None:
        return [(place, name, camera) for place, name, camera in connection.execute(_IMAGES, values)]
    rows = connection.execute(_AT, {**values, "positions": list(positions)})
    return [(place, name, camera) for place, name, camera in rows]
