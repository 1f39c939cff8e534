"""The persons of a gallery, by the labels of its images: who there is, and another name for one.

An image without an identity, or of `0000`, which marks distractors, shows nobody in particular.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, or_, select
from sqlalchemy.orm import Session

from reid_core.data.labels import look_of, normal_label
from reid_core.data.records import DISTRACTOR
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.image_schemas import LookAlike
from service.galleries.labelling import set_labels
from service.galleries.lifecycle import lock_gallery

NOBODY = or_(GalleryImage.identity.is_(None), GalleryImage.identity == DISTRACTOR)
"""Images that show nobody in particular."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person of a gallery.

    Attributes:
        images: how many show it.
        cameras: by which it was seen, in order; images without one do not count.
        first_seen, last_seen: the earliest and the latest time of its images; None where none has a time.
        cover: its image with the most pixels of those whose file is there, or else of all; of several the first.
    """

    label: str
    images: int
    cameras: tuple[str, ...]
    first_seen: datetime | None
    last_seen: datetime | None
    cover: GalleryImage


@dataclass(frozen=True, slots=True)
class Renaming:
    """The outcome of a renaming: how many images had the old label, and how many have the new one now.

    `merged` is true where the gallery had the new label already.
    """

    gallery_id: str
    revision: int
    renamed: int
    images: int
    merged: bool


def list_identities(
    session: Session,
    gallery_id: str,
    *,
    after: str | None,
    limit: int,
    camera: str | None = None,
    prefix: str | None = None,
) -> list[Identity]:
    """The gallery's first `limit` persons by label, behind the label `after`.

    Args:
        camera: only persons with an image of it; "" means images without a camera.
        prefix: only labels that begin so, as it is written.
    """
    persons = _grouped(gallery_id).order_by(GalleryImage.identity).limit(limit)
    if after is not None:
        persons = persons.where(GalleryImage.identity > after)
    if prefix:
        persons = persons.where(func.substr(GalleryImage.identity, 1, len(prefix)) == prefix)
    if camera is not None:
        by_camera = func.coalesce(GalleryImage.camera, "") == camera
        persons = persons.having(func.max(case((by_camera, 1), else_=0)) == 1)
    return _described(session, gallery_id, session.execute(persons).all())


def find_identity(session: Session, gallery_key: str, label: str) -> Identity:
    """The person of that label; raises 404, which names labels that look alike."""
    gallery, label = find(session, Gallery, gallery_key), normal_label(label)
    rows = session.execute(_grouped(gallery.id).where(GalleryImage.identity == label)).all()
    if not rows:
        raise no_images(gallery, f"identity {label!r}", find_look_alikes(session, gallery, label))
    return _described(session, gallery.id, rows)[0]


def rename_identity(
    database: Database, gallery_key: str, label: str, new_label: str, *, key_id: str | None
) -> Renaming:
    """Gives all images of `label` the identity `new_label`, which may exist; raises 404 where there are none.

    The audit log names both by their SHA-256.
    """
    label = normal_label(label)
    with database.write() as session:
        gallery = lock_gallery(session, find(session, Gallery, gallery_key).id)
        images = select(GalleryImage.id).where(GalleryImage.gallery_id == gallery.id)
        renamed = session.scalars(images.where(GalleryImage.identity == label)).all()
        if not renamed:
            raise no_images(gallery, f"identity {label!r}", find_look_alikes(session, gallery, label))
        there = session.scalars(images.where(GalleryImage.identity == new_label)).all()
        set_labels(
            session,
            gallery,
            renamed,
            {"identity": new_label},
            key_id=key_id,
            action="gallery.rename_identity",
            identity_sha256=_digest(label),
            new_identity_sha256=_digest(new_label),
        )
        together = len({*renamed, *there})
        return Renaming(gallery.id, gallery.revision, len(renamed), together, bool(there) and label != new_label)


def find_look_alikes(session: Session, gallery: Gallery, label: str) -> list[LookAlike]:
    """Other labels of the gallery that a person would take for `label`."""
    counts = select(GalleryImage.identity, func.count()).where(
        GalleryImage.gallery_id == gallery.id, GalleryImage.identity.is_not(None), GalleryImage.identity != label
    )
    look = look_of(label)
    return [
        LookAlike(identity=other, images=count)
        for other, count in session.execute(counts.group_by(GalleryImage.identity).order_by(GalleryImage.identity))
        if other and look_of(other) == look
    ]


def no_images(gallery: Gallery, what: str, look_alikes: Sequence[LookAlike]) -> Problem:
    """The 404 problem of a gallery without an image of `what`."""
    labels = ", ".join(repr(other.identity) for other in look_alikes)
    hint = f"It has labels that look alike: {labels}." if labels else ""
    return Problem("not-found", f"Gallery {gallery.name!r} holds no image of {what}.", hint=hint)


def _grouped(gallery_id: str) -> Select[*tuple[Any, ...]]:
    columns = (func.count().label("images"), func.min(GalleryImage.captured_at), func.max(GalleryImage.captured_at))
    of_gallery = select(GalleryImage.identity, *columns).where(GalleryImage.gallery_id == gallery_id, ~NOBODY)
    return of_gallery.group_by(GalleryImage.identity)


def _described(session: Session, gallery_id: str, rows: Sequence[Any]) -> list[Identity]:
    these = GalleryImage.gallery_id == gallery_id, GalleryImage.identity.in_([row[0] for row in rows])
    cameras: dict[str | None, list[str]] = {}
    seen = select(GalleryImage.identity, GalleryImage.camera).where(*these, GalleryImage.camera.is_not(None))
    for label, camera in session.execute(seen.distinct()):
        cameras.setdefault(label, []).append(str(camera))
    covers = {image.identity: image for image in session.scalars(_covers(*these))}
    return [
        Identity(label, count, tuple(sorted(cameras.get(label, ()))), first, last, covers[label])
        for label, count, first, last in rows
    ]


def _covers(*which: ColumnElement[bool]) -> Select[Any]:
    """The cover image of each person among these."""
    kept = or_(GalleryImage.file.is_not(None), GalleryImage.dataset_image_id.is_not(None))
    best_first = (case((kept, 0), else_=1), -GalleryImage.width * GalleryImage.height, GalleryImage.id)
    place = func.row_number().over(partition_by=GalleryImage.identity, order_by=best_first)
    placed = select(GalleryImage.id, place.label("place")).where(*which).subquery()
    return select(GalleryImage).join(placed, placed.c.id == GalleryImage.id).where(placed.c.place == 1)


def _digest(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()
