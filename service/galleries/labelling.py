"""Labelling: the one way by which labels of images change once these are in a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from service.db import audit
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import invalid_request
from service.galleries.clusters import take_from_clusters
from service.galleries.image_schemas import ImageDetails
from service.galleries.images import find_image
from service.galleries.lifecycle import lock_gallery

_ROWS_PER_STATEMENT = 5000


def set_labels(
    session: Session,
    gallery: Gallery,
    image_ids: Sequence[str],
    labels: Mapping[str, Any],
    *,
    key_id: str | None,
    action: str = "gallery.label_images",
    **detail: Any,
) -> int:
    """Sets `labels` of these images in the transaction of `session`, which has locked `gallery`.

    Images that are given an identity are in no cluster any more. Searches see it with the gallery's next revision. Rows
    of these images that `session` holds have to be refreshed.

    Args:
        image_ids: ids; those that are not in the gallery change nothing.
        labels: new values of `identity`, `camera`, `captured_at` (in UTC) or `external_id`, checked as those of uploads
            are; None clears.
        action, detail: how the audit log names it; no labels may stand there.

    Returns:
        The number of images that had other labels; where it is 0 nothing has changed.
    """
    revision = gallery.revision + 1
    starts = range(0, len(image_ids), _ROWS_PER_STATEMENT)
    pages = [image_ids[start : start + _ROWS_PER_STATEMENT] for start in starts]
    changed = sum(_set_page(session, gallery.id, page, labels, revision) for page in pages)
    if labels.get("identity") is not None:
        take_from_clusters(session, gallery.id, image_ids)
    if changed:
        gallery.revision, gallery.edits = revision, gallery.edits + changed
        told = {"images": changed, "labels": sorted(labels), **detail}
        audit.record(session, key_id=key_id, action=action, target=gallery.id, **told)
    return changed


def edit_image(
    database: Database, gallery_key: str, image_id: str, details: ImageDetails, *, key_id: str | None
) -> GalleryImage:
    """Sets the labels that `details` names, and clears those that it names with null; the image as it is then.

    Raises 404, 410 for an erased image, 422 where nothing is named.
    """
    labels = details.model_dump(exclude_unset=True)
    if not labels:
        known = ", ".join(ImageDetails.model_fields)
        raise invalid_request("", "missing", f"no label is named; send one or more of {known}")
    with database.write() as session:
        gallery = lock_gallery(session, find(session, Gallery, gallery_key).id)
        image = find_image(session, gallery.id, image_id)
        set_labels(session, gallery, [image_id], labels, key_id=key_id)
        session.flush()
        session.refresh(image)
        return image


def _set_page(
    session: Session, gallery_id: str, image_ids: Sequence[str], labels: Mapping[str, Any], revision: int
) -> int:
    differs = or_(*(getattr(GalleryImage, name).is_distinct_from(value) for name, value in labels.items()))
    these = update(GalleryImage).where(GalleryImage.gallery_id == gallery_id, GalleryImage.id.in_(image_ids), differs)
    values = {**labels, "edited_revision": revision}
    done = session.execute(these.values(values).execution_options(synchronize_session=False))
    count: int = done.rowcount  # type: ignore[attr-defined]
    return count
