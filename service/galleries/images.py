"""The images of a gallery one by one, and the one way by which they come in."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.files import Features, generation_of
from service.galleries.image_files import missing_image
from service.galleries.lifecycle import lock_gallery
from service.settings import Settings


def find_image(session: Session, gallery_key: str, image_id: str) -> GalleryImage:
    """The image in that gallery; raises 404, or 410 for one that was erased."""
    gallery = find(session, Gallery, gallery_key)
    image = session.get(GalleryImage, image_id)
    if image is None or image.gallery_id != gallery.id:
        raise missing_image(session, image_id)
    return image


def append(
    database: Database, settings: Settings, gallery_id: str, images: Sequence[GalleryImage], features: Features
) -> int:
    """Adds rows with their features at the gallery's next positions; the revision that shows them.

    All or nothing: what a crash leaves in the files lies beyond the committed positions and is overwritten.
    """
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        append_to(session, settings, gallery, images, features)
        return gallery.revision


def append_to(
    session: Session, settings: Settings, gallery: Gallery, images: Sequence[GalleryImage], features: Features
) -> None:
    """Adds rows with their features as `append`, in the transaction of `session`, which has locked `gallery`."""
    start = gallery.next_position
    generation_of(session, settings, gallery).write(start, features)
    gallery.revision += 1
    gallery.next_position += len(images)
    gallery.images += len(images)
    for position, image in enumerate(images, start):
        image.gallery_id = gallery.id
        image.position = position
        image.added_revision = gallery.revision
    session.add_all(images)


def count_rebuilt(session: Session, gallery_id: str) -> int:
    """The number of positions taken in the generation that is being built; 0 while none is."""
    last = session.scalar(select(func.max(GalleryImage.rebuilt_position)).where(GalleryImage.gallery_id == gallery_id))
    return 0 if last is None else last + 1
