"""Feedback: pairs of a gallery's images of which somebody has said whether they show the same person.

A pair goes with either of its images (`withdrawal`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from service.auth import Caller
from service.clock import utc_now
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Feedback, Gallery, GalleryImage
from service.errors import Problem, invalid_request, not_found
from service.galleries.feedback_schemas import FeedbackBody
from service.galleries.images import find_image
from service.galleries.lifecycle import lock_gallery
from service.kept_searches import read_record
from service.settings import Settings

_ROWS_PER_STATEMENT = 5000


def add_feedback(
    database: Database, settings: Settings, gallery_key: str, body: FeedbackBody, caller: Caller
) -> tuple[Feedback, bool]:
    """Keeps the pair, and whether it is new; of one that is known `same` becomes what is said now.

    Raises:
        Problem: 404 for an image or a search that is not there, 410 for an erased image, 422 where the search asked by
            no image of the gallery, or an image would be paired with itself.
    """
    with database.write() as session:
        gallery = lock_gallery(session, find(session, Gallery, gallery_key).id)
        query_image = _query_image(settings, gallery, body, caller)
        first, second = sorted(find_image(session, gallery.id, key).id for key in (query_image, body.image))
        if first == second:
            raise invalid_request("/image", "same-image", "an image always shows the same person as itself")
        known = session.scalars(
            select(Feedback).where(Feedback.first_image_id == first, Feedback.second_image_id == second)
        ).one_or_none()
        pair = known or Feedback(
            id=new_id("fb"), gallery_id=gallery.id, first_image_id=first, second_image_id=second, same=body.same
        )
        pair.same, pair.key_id, pair.created_at = body.same, caller.key_id, utc_now()
        session.add(pair)
        audit.record(session, key_id=caller.key_id, action="gallery.feedback", target=gallery.id, same=body.same)
        return pair, known is None


def delete_feedback(database: Database, gallery_key: str, feedback_id: str, *, key_id: str | None) -> None:
    """Takes back what was said of a pair; raises 404."""
    with database.write() as session:
        gallery = find(session, Gallery, gallery_key)
        pair = session.get(Feedback, feedback_id)
        if pair is None or pair.gallery_id != gallery.id:
            raise not_found("feedback", feedback_id)
        session.delete(pair)
        audit.record(session, key_id=key_id, action="gallery.delete_feedback", target=gallery.id)


def feedback_of(gallery_id: str, image_id: str | None = None) -> Select[Feedback]:
    """The gallery's pairs, all or those with that image."""
    pairs = select(Feedback).where(Feedback.gallery_id == gallery_id)
    if image_id is None:
        return pairs
    return pairs.where(or_(Feedback.first_image_id == image_id, Feedback.second_image_id == image_id))


def group_by_person(pairs: Sequence[Feedback]) -> list[list[str]]:
    """The images of each person: those that confirmed pairs join; images that no pair confirms are one each.

    Raises:
        Problem: 409 where a rejected pair lies within a person, which the detail names.
    """
    person_of: dict[str, list[str]] = {}
    for pair in pairs:
        for image in (pair.first_image_id, pair.second_image_id):
            person_of.setdefault(image, [image])
    for pair in pairs:
        first, second = person_of[pair.first_image_id], person_of[pair.second_image_id]
        if pair.same and first is not second:
            first += second
            person_of.update(dict.fromkeys(second, first))
    rejected = (pair for pair in pairs if not pair.same)
    wrong = [pair for pair in rejected if person_of[pair.first_image_id] is person_of[pair.second_image_id]]
    if wrong:
        named = ", ".join(f"{pair.id} ({pair.first_image_id}, {pair.second_image_id})" for pair in wrong[:5])
        raise Problem(
            "wrong-state",
            f"{len(wrong)} rejected pairs are joined by confirmed ones: {named}.",
            hint="Say it again for one of the pairs between, or delete it: DELETE /galleries/{id}/feedback/{feedback}.",
        )
    return sorted(sorted(images) for images in {id(images): images for images in person_of.values()}.values())


def images_of(session: Session, image_ids: Sequence[str]) -> dict[str, GalleryImage]:
    """The images by their ids; those that have been erased are left out."""
    starts = range(0, len(image_ids), _ROWS_PER_STATEMENT)
    pages = (GalleryImage.id.in_(image_ids[start : start + _ROWS_PER_STATEMENT]) for start in starts)
    return {image.id: image for page in pages for image in session.scalars(select(GalleryImage).where(page))}


def _query_image(settings: Settings, gallery: Gallery, body: FeedbackBody, caller: Caller) -> str:
    if body.query_image is not None:
        return body.query_image
    record = read_record(settings, body.search_id or "", caller)
    if record.gallery != gallery.id or record.image_id is None:
        message = f"search {body.search_id!r} asked gallery {gallery.name!r} by none of its images"
        hint = "Add the image that was asked by to the gallery, and name it as `query_image`."
        raise invalid_request("/search_id", "no-stored-image", message, hint=hint)
    return record.image_id
