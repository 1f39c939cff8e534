"""Building the index that a gallery's row names, while images come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from reid_core.retrieval.index import build_index, erase_vectors
from reid_core.retrieval.index_recall import estimate_index_recall
from reid_core.retrieval.kinds import resolve_kind
from reid_core.retrieval.snapshot import NO_TIME, Snapshot
from reid_core.retrieval.store import FeatureStore
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.files import embedding_size, generation_folder, open_store, save_index_file
from service.galleries.lifecycle import lock_gallery
from service.galleries.removal import sweep_files
from service.settings import Settings
from service.storage import delete_file

Position = InstrumentedAttribute[int] | InstrumentedAttribute[int | None]

Switch = Callable[[Session, Gallery, dict[str, Any] | None], None]
"""Puts a built index to use, or none, in the transaction in which it is known to hold no erased vector."""


def index_in_place(database: Database, settings: Settings, gallery_id: str, *, should_stop: Callable[[], bool]) -> None:
    """Builds the gallery's index over all of its vectors, for kinds that are slow to search without one.

    The file of the one before goes: it holds vectors that may be erased one day.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        kind = resolve_kind(gallery.index_kind, gallery.next_position, embedding_size(session, gallery))
    built = gallery.index or {"kind": "flat", "images": gallery.next_position}
    if (built["kind"], built["images"]) == (kind, gallery.next_position):
        return
    folder = generation_folder(settings, gallery_id, gallery.generation)

    def switch(session: Session, gallery: Gallery, entry: dict[str, Any] | None) -> None:
        if gallery.index != entry:
            gallery.index = entry
            gallery.revision += 1

    build_and_switch(
        database, gallery_id, folder, gallery.next_position, GalleryImage.position, switch, should_stop=should_stop
    )
    sweep_files(database, settings, gallery_id)


def build_and_switch(
    database: Database,
    gallery_id: str,
    folder: Path,
    count: int,
    position: Position,
    switch: Switch,
    *,
    should_stop: Callable[[], bool],
) -> None:
    """Builds the index over the first `count` vectors in `folder`, and calls `switch` with what the row keeps of it.

    `position` is the column that says where in `folder` an image's vector lies. None is built where flat search is
    wanted: a snapshot makes that from the vectors themselves.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        size = embedding_size(session, gallery)
    kind = resolve_kind(gallery.index_kind, count, size)
    index, recall, entry, seen = None, None, None, -1  # what was erased before may still lie among the vectors
    if kind != "flat":
        store = open_store(folder, size, count=count)
        index = build_index(kind, store.rows(0, count), seed=0)
        recall = _recall(store, index, should_stop)
    while True:
        if index is not None:
            seen = _forget_erased(database, gallery_id, index, position, seen)
            entry = _save(folder, kind, index, recall)
        with database.write() as session:
            gallery = lock_gallery(session, gallery_id)
            if index is None or (gallery.deletions == seen and _is_there(folder, entry)):
                switch(session, gallery, entry)
                return
        if entry is not None:
            delete_file(folder / entry["file"])


def _forget_erased(database: Database, gallery_id: str, index: Any, position: Position, seen: int) -> int:
    """Zeroes in `index` what was erased, unless that is `seen` deletions ago; how many deletions there are now."""
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        if gallery.deletions != seen:
            there = select(position).where(GalleryImage.gallery_id == gallery_id, position < index.ntotal)
            taken = np.array(session.scalars(there).all(), np.int64)
            erase_vectors(index, np.setdiff1d(np.arange(index.ntotal), taken))
        return gallery.deletions


def _recall(store: FeatureStore, index: Any, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
    nothing = [""] * index.ntotal, np.full(index.ntotal, NO_TIME)
    snapshot = Snapshot.open(store, *nothing, index)
    recall = estimate_index_recall(snapshot, np.random.default_rng(0), should_stop=should_stop)
    return None if recall is None else asdict(recall)


def _save(folder: Path, kind: str, index: Any, recall: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        return {**save_index_file(folder, kind, index), "recall": recall}
    except FileNotFoundError:  # an erasure deletes indexes that it does not know, half-written ones too
        return None


def _is_there(folder: Path, entry: dict[str, Any] | None) -> bool:
    return entry is not None and (folder / entry["file"]).exists()
