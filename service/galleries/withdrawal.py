"""Taking images out of a gallery: rows go at once, and what names the bytes that are still to be removed comes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.tables import ErasedImage, Gallery, GalleryImage, PendingErasure
from service.galleries.clusters import drop_empty_clusters


def withdraw(session: Session, gallery: Gallery, images: Sequence[GalleryImage]) -> None:
    """Deletes the rows of `images` in the transaction of `session`, which has locked `gallery`.

    Once that is committed they are in no list, count or search; `removal` then removes their bytes.
    """
    now = utc_now()
    gallery.revision += 1
    for image in images:
        session.delete(image)
        session.add(
            ErasedImage(
                id=image.id,
                gallery_id=gallery.id,
                generation=gallery.generation,
                position=image.position,
                revision=gallery.revision,
                erased_at=now,
            )
        )
        session.add(
            PendingErasure(
                id=image.id,
                gallery_id=gallery.id,
                generation=gallery.generation,
                position=image.position,
                rebuilt_position=image.rebuilt_position,
                file=image.file,
            )
        )
    session.flush()
    drop_empty_clusters(session, gallery.id)
    gallery.images -= len(images)
    gallery.deletions += len(images)
