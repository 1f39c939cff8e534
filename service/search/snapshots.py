"""The snapshot of each gallery that searches run on, brought up to the gallery's revision when it has changed.

As many are held as `REID_GALLERY_MEMORY_BYTES` allows. What counts of a gallery is its vectors, whose mapped pages the
system may reclaim, its index and its columns; maps do not, of which a re-ranking reads its candidates' only.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from reid_core.errors import CoreError
from reid_core.retrieval.maps import MapStore
from reid_core.retrieval.snapshot import Snapshot
from service.db.session import Database
from service.db.tables import ErasedImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.files import (
    embedding_size,
    generation_folder,
    index_path,
    load_index_file,
    open_maps,
    vector_bytes,
)
from service.galleries.opening import open_snapshot, read_columns
from service.galleries.reading import read_current
from service.memory import machine_bytes
from service.settings import Settings

log = logging.getLogger(__name__)

_EXISTS = Gallery.deleted_at.is_(None)

KEPT_GALLERIES = 256
"""However small: each holds a file or two open."""

COLUMN_BYTES = 13
"""Camera, time and life of an image in a snapshot."""

_REVISION = select(Gallery.revision).where(Gallery.id == bindparam("gallery"), _EXISTS)


@dataclass(frozen=True, slots=True, eq=False)
class OpenGallery:
    """A gallery as it was at `revision`; `built` is the kind of its index and how many images it covers.

    `maps` holds the re-ranker's map of every position in `snapshot`; None where the gallery keeps none. `num_bytes` is
    the memory that it takes.
    """

    revision: int
    generation: int
    deletions: int
    edits: int
    built: tuple[str, int]
    snapshot: Snapshot
    maps: MapStore | None
    num_bytes: int


@dataclass(slots=True, eq=False)
class _CacheEntry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    gallery: OpenGallery | None = None


class Snapshots:
    """The newest snapshot of every gallery that was searched lately. Threads share it; a search keeps what it got."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._bytes_allowed = settings.gallery_memory_bytes or machine_bytes() // 2
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _CacheEntry] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Memory that the galleries held now take."""
        with self._lock:
            return self._held()

    def current(self, gallery_id: str, seen: int | None = None) -> OpenGallery:
        """The gallery as of the revision that was `seen` or later, else as of now or later.

        Raises 404 once it is deleted, IndexCorrupt where its files are damaged.
        """
        entry = self._entry(gallery_id)
        revision = self._revision(gallery_id) if seen is None else seen
        opened = entry.gallery
        if opened is not None and revision is not None and opened.revision >= revision:
            return opened
        try:
            with entry.lock:
                opened = entry.gallery = self._refreshed(gallery_id, entry.gallery)
        except Problem:
            self._drop([gallery_id])
            raise
        self._make_room()
        return opened

    def preload(self, *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Opens the galleries that were searched last, as many as there is room for; damaged ones are left out."""
        with self._database.read() as session:
            lately = select(Gallery).where(Gallery.searched_at.is_not(None), Gallery.images > 0, _EXISTS)
            galleries = session.scalars(lately.order_by(Gallery.searched_at.desc()).limit(KEPT_GALLERIES)).all()
            sizes = [_num_bytes(session, self._settings, gallery) for gallery in galleries]
        for gallery, size in zip(galleries, sizes, strict=True):
            if should_stop():
                return
            if self.num_bytes + size > self._bytes_allowed:
                continue
            try:
                opened = self.current(gallery.id)
                opened.snapshot.store.read_ahead(len(opened.snapshot))
            except (Problem, CoreError, OSError) as error:
                log.warning("gallery %s cannot be loaded ahead: %s", gallery.id, error)

    def drop_deleted(self) -> None:
        """Lets go of galleries that were deleted."""
        with self._lock:
            held = list(self._entries)
        if held:
            with self._database.read() as session:
                there = set(session.scalars(select(Gallery.id).where(Gallery.id.in_(held), _EXISTS)))
            self._drop([gallery_id for gallery_id in held if gallery_id not in there])

    def _revision(self, gallery_id: str) -> int | None:
        with self._database.look() as connection:
            return connection.execute(_REVISION, {"gallery": gallery_id}).scalar()

    def _entry(self, gallery_id: str) -> _CacheEntry:
        with self._lock:
            entry = self._entries.setdefault(gallery_id, _CacheEntry())
            self._entries.move_to_end(gallery_id)
            return entry

    def _make_room(self) -> None:
        """Lets go of the galleries that were not searched for longest, but never of the last one."""
        with self._lock:
            while len(self._entries) > 1 and (
                len(self._entries) > KEPT_GALLERIES or self._held() > self._bytes_allowed
            ):
                self._entries.popitem(last=False)

    def _held(self) -> int:
        return sum(entry.gallery.num_bytes for entry in self._entries.values() if entry.gallery is not None)

    def _drop(self, gallery_ids: Sequence[str]) -> None:
        with self._lock:
            for gallery_id in gallery_ids:
                self._entries.pop(gallery_id, None)

    def _refreshed(self, gallery_id: str, before: OpenGallery | None) -> OpenGallery:
        return read_current(
            self._database, gallery_id, lambda session, gallery: _load(session, self._settings, gallery, before)
        )


def _load(session: Session, settings: Settings, gallery: Gallery, before: OpenGallery | None) -> OpenGallery:
    """The gallery as the session sees it; what `before` holds of the same files is used again."""
    if before is not None and before.generation == gallery.generation:
        snapshot, maps = _extended(session, settings, gallery, before), before.maps
    else:
        snapshot, maps = open_snapshot(session, settings, gallery), _opened_maps(settings, gallery)
    if maps is not None:
        maps.hold(gallery.next_position)  # now: a rebuild may delete the file while these are read
    return OpenGallery(
        gallery.revision,
        gallery.generation,
        gallery.deletions,
        gallery.edits,
        _built(gallery),
        snapshot,
        maps,
        _num_bytes(session, settings, gallery),
    )


def _num_bytes(session: Session, settings: Settings, gallery: Gallery) -> int:
    """The memory that the gallery takes once it is opened."""
    folder = generation_folder(settings, gallery.id, gallery.generation)
    path = index_path(folder, gallery.index) if gallery.index else None
    index = path.stat().st_size if path is not None and path.exists() else 0
    return index + gallery.next_position * (vector_bytes(embedding_size(session, gallery)) + COLUMN_BYTES)


def _built(gallery: Gallery) -> tuple[str, int]:
    return (gallery.index["kind"], gallery.index["images"]) if gallery.index else ("flat", 0)


def _opened_maps(settings: Settings, gallery: Gallery) -> MapStore | None:
    if gallery.maps is None:
        return None
    folder = generation_folder(settings, gallery.id, gallery.generation)
    return open_maps(folder, gallery.maps, count=gallery.next_position)


def _extended(session: Session, settings: Settings, gallery: Gallery, before: OpenGallery) -> Snapshot:
    snapshot, start = before.snapshot, len(before.snapshot)
    if gallery.next_position > start:
        cameras, times, empty = read_columns(session, gallery.id, start, gallery.next_position)
        snapshot = snapshot.with_added(cameras, times).without(empty)
    if gallery.deletions != before.deletions:
        since = select(ErasedImage.position).where(
            ErasedImage.gallery_id == gallery.id,
            ErasedImage.revision > before.revision,
            ErasedImage.generation == gallery.generation,
        )
        snapshot = snapshot.without(np.array(session.scalars(since).all(), np.int64))
    if gallery.edits != before.edits:
        snapshot = snapshot.with_changed(*_edited(session, gallery, before))
    # An erasure replaces the index, or gives it up, but what it removed is hidden in this snapshot already.
    if gallery.index is not None and _built(gallery) != before.built:
        folder = generation_folder(settings, gallery.id, gallery.generation)
        snapshot = replace(snapshot, index=load_index_file(folder, gallery.index))
    return snapshot


def _edited(
    session: Session, gallery: Gallery, before: OpenGallery
) -> tuple[list[int], list[str], list[datetime | None]]:
    """Position, camera and time of the images of `before` whose labels have changed since."""
    columns = select(GalleryImage.position, GalleryImage.camera, GalleryImage.captured_at)
    since = GalleryImage.edited_revision > before.revision, GalleryImage.position < len(before.snapshot)
    rows = session.execute(columns.where(GalleryImage.gallery_id == gallery.id, *since)).all()
    return [row.position for row in rows], [row.camera or "" for row in rows], [row.captured_at for row in rows]
