"""Embeddings made elsewhere as images of a gallery: checked all together, then added page by page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from reid_core.retrieval.directions import to_directions
from service.db import audit
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem, invalid_request
from service.galleries.conflicts import OnConflict, resolve
from service.galleries.embedding_files import BLOCK, Block, EmbeddingFile
from service.galleries.files import embedding_size, feature_bytes
from service.galleries.images import append_to
from service.galleries.lifecycle import lock_gallery
from service.galleries.removal import remove_erased
from service.galleries.withdrawal import withdraw
from service.settings import Settings
from service.storage import ensure_free_space

_UNIT = 1e-3
"""A length this close to 1 is one that the network itself may have given, in half precision."""


@dataclass(slots=True)
class EmbeddingAddition:
    """The outcome: counts of rows, `rescaled` of those whose embedding was not of unit length."""

    gallery_id: str
    added: int = 0
    skipped: int = 0
    replaced: int = 0
    rescaled: int = 0
    revision: int = 0


def embedding_size_of(database: Database, gallery_key: str) -> int:
    """The numbers of an embedding; raises 404, or 409 for a gallery that keeps more than vectors and labels."""
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        for keeps, what, field in (
            (gallery.keep_images, "images", '"keep_images": false'),
            (gallery.maps is not None, "local features", '"maps": "none"'),
        ):
            if keeps:
                raise Problem(
                    "wrong-state",
                    f"Gallery {gallery.name!r} keeps {what}, which embeddings made elsewhere do not come with.",
                    hint=f"Make a gallery with {field} for them.",
                )
        return embedding_size(session, gallery)


def add_embeddings(
    database: Database,
    settings: Settings,
    gallery_key: str,
    file: EmbeddingFile,
    *,
    on_conflict: OnConflict,
    key_id: str | None,
) -> EmbeddingAddition:
    """Adds every row of the file as an image without a picture; the next search finds them.

    The whole file is checked first. Its pages are added one by one, for others to write in between: what ends this
    in its middle (a kill, a full disk, the gallery's deletion) leaves the pages before, each of them whole.

    Raises:
        Problem: 404 for an unknown gallery, 413 for too many rows, 422 for a file with a row that cannot be taken, 507
            without disk space.
    """
    count = len(file)
    if count > settings.max_rows_per_request:
        limit = settings.max_rows_per_request
        detail = f"The file has {count:,} rows; REID_MAX_ROWS_PER_REQUEST = {limit:,} are taken at a time."
        raise Problem("too-large", detail, hint="Send it in several requests, or raise REID_MAX_ROWS_PER_REQUEST.")
    rescaled = sum(_count_rescaled(vectors, number * BLOCK) for number, (vectors, _) in enumerate(file.blocks()))
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        needed = count * feature_bytes(session, gallery)
        addition = EmbeddingAddition(gallery.id, rescaled=rescaled, revision=gallery.revision)
    ensure_free_space(settings.galleries_dir, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)
    for block in file.blocks():
        with database.write() as session:
            _add_block(session, settings, lock_gallery(session, gallery.id), block, on_conflict, addition, key_id)
    if addition.replaced:
        remove_erased(database, settings, gallery.id)
    return addition


def _add_block(
    session: Session,
    settings: Settings,
    gallery: Gallery,
    block: Block,
    on_conflict: OnConflict,
    addition: EmbeddingAddition,
    key_id: str | None,
) -> None:
    vectors, details = block
    ids = new_ids("img", len(details))
    images = [
        GalleryImage(id=image_id, filename="", sha256="", width=0, height=0, **dict(known))
        for image_id, known in zip(ids, details, strict=True)
    ]
    plan = resolve(session, gallery.id, images, on_conflict)
    if replaced := [image for old in plan.replaced.values() for image in old]:
        withdraw(session, gallery, replaced)
    if plan.added:
        added = [images[number] for number in plan.added]
        append_to(session, settings, gallery, added, (to_directions(vectors[plan.added])[0],))
    addition.added += len(plan.added)
    addition.skipped += len(plan.skipped)
    addition.replaced += len(replaced)
    addition.revision = gallery.revision
    counts = {"images": len(plan.added), "replaced": len(replaced)}
    audit.record(session, key_id=key_id, action="gallery.add_embeddings", target=gallery.id, **counts)


def _count_rescaled(vectors: NDArray[np.float64], first: int) -> int:
    """The number of `vectors` that are not of unit length; raises 422 for one without a direction."""
    _, has_direction = to_directions(vectors)
    if not has_direction.all():
        number = first + int(np.argmin(has_direction))
        message = f"row {number} is zero or not finite, so it has no direction"
        raise invalid_request(f"/embeddings/{number}", "no-direction", message, hint="Leave such rows out.")
    return int((np.abs(np.linalg.norm(vectors, axis=1) - 1) > _UNIT).sum())
