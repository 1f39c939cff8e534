"""Erasing pictures so that nothing of them is left in a file, with a receipt of what was removed.

Vectors and maps are zeroed and pictures deleted before the rows are: an erasure that a crash interrupts can be asked
for again. Built indexes hold copies of vectors; one that covers an erased picture is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from reid_core.data.labels import normal_label
from reid_core.errors import IndexCorrupt
from service.clock import rfc3339, utc_now
from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, ErasedImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.features import generation_of
from service.galleries.images import count_rebuilt, find_image
from service.galleries.lifecycle import lock_gallery
from service.pictures import pictures_folder
from service.settings import Settings
from service.storage import delete_file, delete_tree
from service.vectors import delete_index_files, gallery_folder, generation_folder, save_erased_index


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure removed, and what it did not because it is not the gallery's.

    Attributes:
        images: rows, each with its identity, camera, time, file name and keys.
        vectors: embeddings overwritten with zeros, those of an unfinished rebuild included.
        local_features: maps overwritten likewise, where the gallery keeps them.
        pictures: stored files deleted.
        indexes: built indexes replaced by one without the vectors.
        left_in_place: data sets whose pictures they are and where they still lie: {dataset, name, pictures}.
    """

    gallery_id: str
    revision: int
    erased_at: datetime
    images: int
    vectors: int
    local_features: int
    pictures: int
    indexes: int
    left_in_place: tuple[dict[str, Any], ...]

    @property
    def removed(self) -> dict[str, int]:
        return {
            "images": self.images,
            "vectors": self.vectors,
            "pictures": self.pictures,
            "local_features": self.local_features,
            "rows": self.images,
            "indexes": self.indexes,
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "gallery": self.gallery_id,
            "revision": self.revision,
            "erased_at": rfc3339(self.erased_at),
            "removed": self.removed,
            "left_in_place": list(self.left_in_place),
        }


@dataclass(frozen=True, slots=True)
class _IndexChange:
    """The gallery's built index as it was, and the one that takes its place: without the vectors at `positions`."""

    before: dict[str, Any] | None
    positions: frozenset[int]
    after: dict[str, Any] | None


Record = Callable[[Session, Receipt], None]
"""Writes an erasure into the audit log, in its transaction."""


def erase_identity(
    database: Database, settings: Settings, gallery_key: str, identity: str, *, key_id: str | None
) -> dict[str, Any]:
    """Erases every picture of `identity` in the gallery; the receipt, with the identity's SHA-256 in its place.

    Raises 404 where the gallery holds no picture of it.
    """
    identity = normal_label(identity)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)

    def record(session: Session, receipt: Receipt) -> None:
        detail = {"identity_sha256": digest, "removed": receipt.removed}
        audit.record(session, key_id=key_id, action="gallery.erase_identity", target=gallery.id, **detail)

    receipt = erase(database, settings, gallery.id, GalleryImage.identity == identity, record)
    if receipt is None:
        raise Problem("not-found", f"gallery {gallery.name!r} holds no picture of identity {identity!r}")
    return {"identity_sha256": digest} | receipt.as_json()


def erase_image(
    database: Database, settings: Settings, gallery_key: str, image_id: str, *, key_id: str | None
) -> Receipt:
    """Erases one picture; raises 404, or 410 where that has been done."""
    with database.read() as session:
        gallery_id = find_image(session, gallery_key, image_id).gallery_id

    def record(session: Session, receipt: Receipt) -> None:
        detail = {"image": image_id, "removed": receipt.removed}
        audit.record(session, key_id=key_id, action="gallery.erase_image", target=gallery_id, **detail)

    receipt = erase(database, settings, gallery_id, GalleryImage.id == image_id, record)
    if receipt is None:
        raise Problem("erased", f"picture {image_id!r} has been erased")
    return receipt


def erase(
    database: Database, settings: Settings, gallery_id: str, which: ColumnElement[bool], record: Record
) -> Receipt | None:
    """Erases the gallery's pictures for which `which` holds; None where there are none."""
    receipt = None
    while receipt is None:
        with database.read() as session:
            gallery = session.get(Gallery, gallery_id)
            images = _chosen(session, gallery_id, which)
        if gallery is None or not images:
            return None
        # Outside of the transaction, since a large index takes long to write.
        change = _change_index(settings, gallery, images)
        with database.write() as session:
            receipt = _erase_rows(session, settings, gallery_id, which, change)
            if receipt is not None:
                record(session, receipt)
        sweep_files(database, settings, gallery_id)
    database.scrub()
    return receipt


def sweep_files(database: Database, settings: Settings, gallery_id: str) -> None:
    """Deletes earlier generations, and built indexes that are not in use: they may hold erased vectors.

    A job that has just saved an index finds it gone when it is about to use it, and saves it again without them.
    """
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        for folder in gallery_folder(settings, gallery_id).glob("[0-9]*"):
            if int(folder.name) < gallery.generation:
                delete_tree(folder)
            else:
                delete_index_files(folder, but=gallery.index if int(folder.name) == gallery.generation else None)


def _chosen(session: Session, gallery_id: str, which: ColumnElement[bool]) -> Sequence[GalleryImage]:
    return session.scalars(select(GalleryImage).where(GalleryImage.gallery_id == gallery_id, which)).all()


def _change_index(settings: Settings, gallery: Gallery, images: Sequence[GalleryImage]) -> _IndexChange:
    covered = gallery.index["images"] if gallery.index else 0
    positions = frozenset(image.position for image in images if image.position < covered)
    if gallery.index is None or not positions:
        return _IndexChange(gallery.index, positions, gallery.index)
    folder = generation_folder(settings, gallery.id, gallery.generation)
    try:
        return _IndexChange(gallery.index, positions, save_erased_index(folder, gallery.index, sorted(positions)))
    except IndexCorrupt:
        return _IndexChange(gallery.index, positions, None)  # erasing goes before quick searching


def _erase_rows(
    session: Session, settings: Settings, gallery_id: str, which: ColumnElement[bool], change: _IndexChange
) -> Receipt | None:
    """Erases all but the old index; None where the gallery changed since `change` was prepared."""
    gallery = lock_gallery(session, gallery_id)
    images = _chosen(session, gallery_id, which)
    covered = gallery.index["images"] if gallery.index else 0
    positions = {image.position for image in images if image.position < covered}
    if not images or gallery.index != change.before or not positions <= change.positions:
        return None
    erased = _zero_features(session, settings, gallery, images)
    receipt = Receipt(
        gallery_id=gallery_id,
        revision=gallery.revision + 1,
        erased_at=utc_now(),
        images=len(images),
        vectors=erased,
        local_features=erased if gallery.maps else 0,
        pictures=_delete_pictures(settings, gallery_id, images),
        indexes=int(change.after != change.before),
        left_in_place=_left_in_place(session, images),
    )
    for image in images:
        session.delete(image)
        session.add(ErasedImage(id=image.id, gallery_id=gallery_id, erased_at=receipt.erased_at))
    gallery.revision = receipt.revision
    gallery.images -= len(images)
    gallery.deletions += len(images)
    gallery.index = change.after
    return receipt


def _zero_features(session: Session, settings: Settings, gallery: Gallery, images: Sequence[GalleryImage]) -> int:
    """Zeroes vectors and maps in the generation in use and in the one that is being built; how many of each."""
    current = [image.position for image in images]
    rebuilt = [image.rebuilt_position for image in images if image.rebuilt_position is not None]
    generation_of(session, settings, gallery).erase(current, count=gallery.next_position)
    generation_of(session, settings, gallery, ahead=1).erase(rebuilt, count=count_rebuilt(session, gallery.id))
    return len(current) + len(rebuilt)


def _delete_pictures(settings: Settings, gallery_id: str, images: Sequence[GalleryImage]) -> int:
    folder = pictures_folder(settings, gallery_id)
    return sum(delete_file(folder / image.file) for image in images if image.file is not None)


def _left_in_place(session: Session, images: Sequence[GalleryImage]) -> tuple[dict[str, Any], ...]:
    counts: dict[str, int] = {}
    for image in images:
        if image.dataset_image_id and (origin := session.get(DatasetImage, image.dataset_image_id)):
            counts[origin.dataset_id] = counts.get(origin.dataset_id, 0) + 1
    return tuple(
        {"dataset": key, "name": session.get_one(Dataset, key).name, "pictures": count} for key, count in counts.items()
    )
