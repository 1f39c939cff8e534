"""Images that are sent with an external id which the gallery has: added beside, left out, or put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import GalleryImage

OnConflict = Literal["add", "skip", "replace"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The images of one request that are added, skipped and replaced.

    Attributes:
        added: those to be added, by their number in the request.
        skipped: number of each that is left out -> id of the image that stands under its external id.
        replaced: the gallery's images in whose place one comes, by the number of that one.
    """

    added: list[int]
    skipped: dict[int, str]
    replaced: dict[int, list[GalleryImage]]


def resolve(session: Session, gallery_id: str, images: Sequence[GalleryImage], on_conflict: OnConflict) -> Resolution:
    """Decides which of `images` are added, skipped or replace others, under the gallery's lock.

    Of several with the same external id in one request the first counts where known ones are skipped, and the last
    where they are replaced. Images without an external id are always added.
    """
    if on_conflict == "add":
        return Resolution(list(range(len(images))), {}, {})
    known = find_known(session, gallery_id, [image.external_id for image in images])
    winners: dict[str, int] = {}
    for number, image in enumerate(images):
        if image.external_id is not None and (on_conflict == "replace" or image.external_id not in winners):
            winners[image.external_id] = number
    resolution = Resolution([], {}, {})
    for number, image in enumerate(images):
        old = known.get(image.external_id or "", [])
        winner = number if image.external_id is None else winners[image.external_id]
        if on_conflict == "skip" and old:
            resolution.skipped[number] = old[-1].id
        elif winner != number:
            resolution.skipped[number] = images[winner].id
        else:
            resolution.added.append(number)
            if old:
                resolution.replaced[number] = old
    return resolution


def find_known(session: Session, gallery_id: str, external_ids: Sequence[str | None]) -> dict[str, list[GalleryImage]]:
    """The gallery's images with one of these external ids, by it, in the order in which they came."""
    known: dict[str, list[GalleryImage]] = {}
    wanted = {external_id for external_id in external_ids if external_id is not None}
    found = select(GalleryImage).where(GalleryImage.gallery_id == gallery_id, GalleryImage.external_id.in_(wanted))
    for image in session.scalars(found.order_by(GalleryImage.id)) if wanted else ():
        known.setdefault(str(image.external_id), []).append(image)
    return known
