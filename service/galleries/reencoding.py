"""Rebuilding a gallery: every image encoded anew into the next generation, which takes over in one transaction.

Searches go on in the old generation meanwhile. Which images have been done stands in their rows
(`rebuilt_position`), so that a job that was interrupted goes on, and an erasure finds the new features too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from reid_core.errors import Stopped
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.encoding import GalleryEncoder, ReadImage, read_ahead
from service.galleries.files import Features, feature_bytes, generation_folder, generation_of
from service.galleries.image_files import image_path
from service.galleries.images import count_rebuilt
from service.galleries.index import build_and_switch
from service.galleries.lifecycle import lock_gallery
from service.galleries.removal import sweep_files
from service.settings import Settings
from service.storage import ensure_free_space

PAGE_SIZE = 128


def rebuild(
    database: Database,
    settings: Settings,
    gallery_id: str,
    encoder: GalleryEncoder,
    *,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> dict[str, int]:
    """Encodes all images again, numbers them without gaps in their old order and builds the index.

    An image whose file is not kept or cannot be read keeps its features: how many were embedded and kept. Raises
    `Stopped` between pages, when `should_stop` says so; IndexCorrupt where features must be kept but are lost; the 507
    problem where the disk cannot take them all a second time.
    """
    _ensure_space(database, settings, gallery_id)
    embedded = kept = 0
    with closing(read_ahead(_pages(database, settings, gallery_id), encoder, settings)) as pages:
        for page, read in pages:
            if should_stop():
                raise Stopped
            features = _encode(page, read, encoder)
            with database.write() as session:
                gallery = lock_gallery(session, gallery_id)
                # What has been erased since the page was read must not come in again.
                still_there = select(GalleryImage).where(GalleryImage.id.in_([image.id for image in page]))
                images = session.scalars(still_there.order_by(GalleryImage.position)).all()
                _write(session, settings, gallery, count_rebuilt(session, gallery_id), images, features)
            embedded += len(features)
            kept += len(page) - len(features)
            on_progress(*_progress(database, gallery_id))
    _switch_over(database, settings, gallery_id, should_stop)
    return {"embedded": embedded, "kept": kept}


def _ensure_space(database: Database, settings: Settings, gallery_id: str) -> None:
    done, total = _progress(database, gallery_id)
    with database.read() as session:
        needed = (total - done) * feature_bytes(session, find(session, Gallery, gallery_id))
    ensure_free_space(settings.galleries_dir, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)


def _pages(
    database: Database, settings: Settings, gallery_id: str
) -> Iterator[tuple[Sequence[GalleryImage], list[Path | None]]]:
    """The images that are not in the new generation yet with their files, page by page."""
    last = -1
    while page := _read_page(database, gallery_id, last):
        yield page, _paths(database, settings, page)
        last = page[-1].position


def _read_page(database: Database, gallery_id: str, last: int) -> Sequence[GalleryImage]:
    undone = select(GalleryImage).where(
        GalleryImage.gallery_id == gallery_id, GalleryImage.rebuilt_position.is_(None), GalleryImage.position > last
    )
    with database.read() as session:
        return session.scalars(undone.order_by(GalleryImage.position).limit(PAGE_SIZE)).all()


def _paths(database: Database, settings: Settings, page: Sequence[GalleryImage]) -> list[Path | None]:
    def path(image: GalleryImage) -> Path | None:
        try:
            return image_path(session, settings, image)
        except Problem:
            return None

    with database.read() as session:
        return [path(image) for image in page]


def _encode(
    page: Sequence[GalleryImage], read: Sequence[ReadImage | None], encoder: GalleryEncoder
) -> dict[str, Features]:
    """Features of one image each by its id, of those whose file can be read."""
    found = {row.id: image.prepared for row, image in zip(page, read, strict=True) if image is not None}
    return _by_id(found, encoder.encode(list(found.values()))) if found else {}


def _write(
    session: Session,
    settings: Settings,
    gallery: Gallery,
    start: int,
    images: Sequence[GalleryImage],
    features: dict[str, Features],
) -> None:
    """Puts `images` into the new generation from `start` on: `features` by image id, others as in the old one."""
    if not images:
        return
    kept = [image for image in images if image.id not in features]
    if kept:
        old = generation_of(session, settings, gallery)
        copies = old.read([image.position for image in kept], count=gallery.next_position)
        features = features | _by_id([image.id for image in kept], copies)
    columns = zip(*(features[image.id] for image in images), strict=True)
    generation_of(session, settings, gallery, ahead=1).write(start, tuple(np.stack(column) for column in columns))
    for position, image in enumerate(images, start):
        image.rebuilt_position = position


def _by_id(ids: Iterable[str], features: Features) -> dict[str, Features]:
    return dict(zip(ids, zip(*features, strict=True), strict=True))


def _switch_over(database: Database, settings: Settings, gallery_id: str, should_stop: Callable[[], bool]) -> None:
    with database.read() as session:
        gallery, count = find(session, Gallery, gallery_id), count_rebuilt(session, gallery_id)
    new = generation_folder(settings, gallery_id, gallery.generation + 1)

    def switch(session: Session, gallery: Gallery, entry: dict[str, Any] | None) -> None:
        late = select(GalleryImage).where(
            GalleryImage.gallery_id == gallery_id, GalleryImage.rebuilt_position.is_(None)
        )
        # After all that the index covers, although the last of those may have been erased.
        start = max(count, count_rebuilt(session, gallery_id))
        images = session.scalars(late.order_by(GalleryImage.position)).all()
        _write(session, settings, gallery, start, images, {})
        gallery.next_position = start + len(images)
        session.flush()
        _renumber(session, gallery_id)
        gallery.generation += 1
        gallery.revision += 1
        gallery.index = entry

    build_and_switch(database, gallery_id, new, count, GalleryImage.rebuilt_position, switch, should_stop=should_stop)
    sweep_files(database, settings, gallery_id)


def _renumber(session: Session, gallery_id: str) -> None:
    of_gallery = update(GalleryImage).where(GalleryImage.gallery_id == gallery_id)
    # By way of negative numbers, so that no two images have the same position in between.
    for position in (-1 - GalleryImage.rebuilt_position, -1 - GalleryImage.position):
        session.execute(of_gallery.values(position=position).execution_options(synchronize_session=False))
    session.execute(of_gallery.values(rebuilt_position=None).execution_options(synchronize_session=False))


def _progress(database: Database, gallery_id: str) -> tuple[int, int]:
    of_gallery = select(func.count()).where(GalleryImage.gallery_id == gallery_id)
    with database.read() as session:
        done = session.scalar(of_gallery.where(GalleryImage.rebuilt_position.is_not(None))) or 0
        return done, session.scalar(of_gallery) or 0
