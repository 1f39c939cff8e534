"""Erasing images so that nothing of them is left in a file, with a receipt of what was removed.

All or nothing: one transaction takes the rows (`withdrawal`), then their bytes are removed (`removal`). What cannot be
removed at once, because the process is killed or the disk is full, a sweep removes; nothing needs to be asked twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from reid_core.data.labels import normal_label
from service.clock import rfc3339, utc_now
from service.db import answers, audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.clusters import count_entries
from service.galleries.feedback_export import left_in_exports
from service.galleries.filters import FILTERS, Filters, condition_of
from service.galleries.identities import find_look_alikes, no_images
from service.galleries.image_files import image_folder
from service.galleries.image_schemas import LeftInPlace, LookAlike, ReceiptAnswer, Remaining, RemovedCounts
from service.galleries.images import find_image
from service.galleries.lifecycle import lock_gallery
from service.galleries.removal import count_pending, remove_erased
from service.galleries.withdrawal import count_feedback, withdraw
from service.kept_searches import last_end
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of an erasure: what it removed, and what it did not.

    Attributes:
        images: rows, each with its identity, camera, time, file name and keys.
        vectors: embeddings overwritten with zeros, those of an unfinished rebuild included.
        local_features: maps overwritten likewise, where the gallery keeps them.
        files: stored files deleted.
        indexes: built indexes replaced by one without the vectors.
        cluster_entries: entries of the images in proposed persons.
        feedback: pairs of images that named one of them.
        left_in_place: data sets whose images they are, or that feedback was made into, and where they still lie.
        remaining: what stays for a time.
    """

    gallery_id: str
    revision: int
    erased_at: datetime
    images: int
    vectors: int
    local_features: int
    files: int
    indexes: int
    cluster_entries: int
    feedback: int
    left_in_place: tuple[LeftInPlace, ...]
    remaining: tuple[Remaining, ...] = ()

    @property
    def removed(self) -> dict[str, int]:
        return {
            "images": self.images,
            "vectors": self.vectors,
            "pictures": self.files,
            "local_features": self.local_features,
            "rows": self.images,
            "indexes": self.indexes,
            "cluster_entries": self.cluster_entries,
            "feedback": self.feedback,
        }

    def answer(self, told: Mapping[str, str], look_alikes: Sequence[LookAlike]) -> ReceiptAnswer:
        """The receipt as clients see it; `told` is by what the images were chosen."""
        return ReceiptAnswer(
            **told,
            gallery=self.gallery_id,
            revision=self.revision,
            erased_at=self.erased_at,
            removed=RemovedCounts(**self.removed),
            left_in_place=list(self.left_in_place),
            remaining=list(self.remaining),
            look_alikes=list(look_alikes),
        )


Record = Callable[[Session, Receipt], None]
"""Writes an erasure into the audit log, in its transaction."""


def erase_identity(
    database: Database, settings: Settings, gallery_key: str, identity: str, *, key_id: str | None
) -> ReceiptAnswer:
    """Erases every image of `identity` in the gallery; the receipt, with the identity's SHA-256 in its place.

    Raises 404 where the gallery holds no image of it.
    """
    identity = normal_label(identity)
    return _erase_matching(database, settings, gallery_key, {"identity": identity}, "gallery.erase_identity", key_id)


def erase_images(
    database: Database, settings: Settings, gallery_key: str, filters: Filters, *, key_id: str | None
) -> ReceiptAnswer:
    """Erases every image that meets all of `filters`: a receipt as `erase_identity`, times standing in it as they are.

    Raises 422 without a filter, 404 where the gallery holds no such image.
    """
    if not filters:
        raise Problem(
            "invalid-request",
            "No filter says which images to erase.",
            hint=f"Give one or more of {', '.join(FILTERS)}; DELETE /galleries/{gallery_key} erases all.",
        )
    return _erase_matching(database, settings, gallery_key, filters, "gallery.erase_images", key_id)


def erase_image(
    database: Database, settings: Settings, gallery_key: str, image_id: str, *, key_id: str | None
) -> Receipt:
    """Erases one image; raises 404, or 410 where that has been done."""
    with database.read() as session:
        gallery_id = find_image(session, gallery_key, image_id).gallery_id

    def record(session: Session, receipt: Receipt) -> None:
        detail = {"image": image_id, "removed": receipt.removed}
        audit.record(session, key_id=key_id, action="gallery.erase_image", target=gallery_id, **detail)

    receipt = erase(database, settings, gallery_id, GalleryImage.id == image_id, record)
    if receipt is None:
        raise Problem("erased", f"Image {image_id!r} has been erased.")
    return receipt


def erase(
    database: Database, settings: Settings, gallery_id: str, which: ColumnElement[bool], record: Record
) -> Receipt | None:
    """Erases the gallery's images for which `which` holds; None where there are none."""
    chosen = select(GalleryImage).where(GalleryImage.gallery_id == gallery_id, which)
    with database.read() as session:
        if session.scalars(chosen.limit(1)).first() is None:
            return None
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        images = session.scalars(chosen).all()
        if not images:
            return None
        receipt = _count(session, settings, gallery, images)
        withdraw(session, gallery, images)
        record(session, receipt)
    remove_erased(database, settings, gallery_id)
    with database.read() as session:
        pending = count_pending(session, gallery_id, {image.id for image in images})
        return replace(receipt, remaining=tuple(_remaining(session, settings, gallery, pending)))


def _erase_matching(
    database: Database,
    settings: Settings,
    gallery_key: str,
    filters: Filters,
    action: str,
    key_id: str | None,
) -> ReceiptAnswer:
    told = _told(filters)
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        look_alikes = find_look_alikes(session, gallery, str(filters["identity"])) if "identity" in filters else []

    def record(session: Session, receipt: Receipt) -> None:
        detail = {**told, "removed": receipt.removed}
        audit.record(session, key_id=key_id, action=action, target=gallery.id, **detail)

    receipt = erase(database, settings, gallery.id, condition_of(filters), record)
    if receipt is None:
        shown = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in filters.items()}
        what = " and ".join(f"{name} {value!r}" for name, value in shown.items())
        raise no_images(gallery, what, look_alikes)
    return receipt.answer(told, look_alikes)


def _told(filters: Filters) -> dict[str, str]:
    """The filters as receipts and the audit log name them: labels by their SHA-256 only, times in RFC 3339."""
    told = {}
    for name, value in filters.items():
        if isinstance(value, datetime):
            told[name] = rfc3339(value)
        else:
            told[f"{name}_sha256"] = hashlib.sha256(value.encode()).hexdigest()
    return told


def _count(session: Session, settings: Settings, gallery: Gallery, images: Sequence[GalleryImage]) -> Receipt:
    """The receipt of erasing `images`, before that is done."""
    folder = image_folder(settings, gallery.id)
    vectors = len(images) + sum(image.rebuilt_position is not None for image in images)
    covered = gallery.index["images"] if gallery.index else 0
    return Receipt(
        gallery_id=gallery.id,
        revision=gallery.revision + 1,
        erased_at=utc_now(),
        images=len(images),
        vectors=vectors,
        local_features=vectors if gallery.maps else 0,
        files=sum(image.file is not None and (folder / image.file).exists() for image in images),
        indexes=int(any(image.position < covered for image in images)),
        cluster_entries=count_entries(session, [image.id for image in images]),
        feedback=count_feedback(session, images),
        left_in_place=_left_in_place(session, settings, gallery, images),
    )


def _left_in_place(
    session: Session, settings: Settings, gallery: Gallery, images: Sequence[GalleryImage]
) -> tuple[LeftInPlace, ...]:
    counts = left_in_exports(session, settings, gallery, images)
    for image in images:
        if image.dataset_image_id and (origin := session.get(DatasetImage, image.dataset_image_id)):
            counts[origin.dataset_id] = counts.get(origin.dataset_id, 0) + 1
    return tuple(
        LeftInPlace(dataset=key, name=session.get_one(Dataset, key).name, pictures=count)
        for key, count in counts.items()
    )


def _remaining(session: Session, settings: Settings, gallery: Gallery, pending: int) -> list[Remaining]:
    remaining: list[Remaining] = []
    if pending:
        what = f"bytes of {pending} erased images, which could not be removed yet; the service goes on trying"
        remaining.append(Remaining(what=what, until=None))
    if end := last_end(settings, gallery.id):
        what = "images that were sent to searches of this gallery, kept to draw their explanations"
        remaining.append(Remaining(what=what, until=end))
    keep = timedelta(seconds=settings.idempotency_seconds)
    if end := answers.last_end(session, _naming(gallery), keep=keep):
        what = "answers remembered for their Idempotency-Key, sealed with the key of who asked"
        remaining.append(Remaining(what=what, until=end))
    return remaining


def _naming(gallery: Gallery) -> list[str]:
    """The beginnings of the addresses whose answers may name images of the gallery: uploads to it, searches, proposed
    persons, feedback and renamings."""
    rooms = ("images", "clusters/", "identities/rename", "feedback")
    paths = ["/search", *(f"/galleries/{key}/{room}" for key in (gallery.id, gallery.name) for room in rooms)]
    return [prefix + path for prefix in ("", "/v1") for path in paths]
