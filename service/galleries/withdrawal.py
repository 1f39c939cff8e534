"""Taking images out of a gallery: rows go at once, and what names the bytes that are still to be removed comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.tables import ErasedImage, Feedback, Gallery, GalleryImage, PendingErasure
from service.galleries.clusters import clusters_with, drop_empty_clusters

_ROWS_PER_STATEMENT = 5000


def withdraw(session: Session, gallery: Gallery, images: Sequence[GalleryImage]) -> None:
    """Deletes the rows of `images` in the transaction of `session`, which has locked `gallery`.

    Once that is committed they are in no list, count or search, nor is feedback on them; `removal` then removes their
    bytes.
    """
    now = utc_now()
    clusters = clusters_with(session, gallery.id, [image.id for image in images])
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
    drop_empty_clusters(session, clusters)
    for page in _pages(images):
        session.execute(delete(Feedback).where(_named(page)).execution_options(synchronize_session=False))
    gallery.images -= len(images)
    gallery.deletions += len(images)


def count_feedback(session: Session, images: Sequence[GalleryImage]) -> int:
    """Counts the pairs of feedback that name one of `images`."""
    pairs = (session.scalars(select(Feedback.id).where(_named(page))).all() for page in _pages(images))
    return len({key for page in pairs for key in page})


def _pages(images: Sequence[GalleryImage]) -> Iterator[list[str]]:
    for start in range(0, len(images), _ROWS_PER_STATEMENT):
        yield [image.id for image in images[start : start + _ROWS_PER_STATEMENT]]


def _named(image_ids: Sequence[str]) -> ColumnElement[bool]:
    return or_(Feedback.first_image_id.in_(image_ids), Feedback.second_image_id.in_(image_ids))
