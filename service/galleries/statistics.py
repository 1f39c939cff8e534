"""Statistics of a gallery, measured at the end of an index job and shown with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from sqlalchemy import select

from reid_core.matching import FoldedHead
from reid_core.retrieval.recall import estimate_candidate_recall
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage, JsonObject
from service.galleries.files import embedding_size, generation_folder, open_maps, open_store
from service.galleries.lifecycle import lock_gallery
from service.settings import Settings


def refresh_statistics(
    database: Database,
    settings: Settings,
    gallery_id: str,
    head: FoldedHead,
    *,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Writes the candidate recall of a gallery that keeps maps into its row; `head` scores pairs of those maps."""
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        size = embedding_size(session, gallery)
        of_gallery = select(GalleryImage.position).where(GalleryImage.gallery_id == gallery_id)
        positions = np.array(session.scalars(of_gallery).all(), np.int64)
    statistics: JsonObject | None = None
    if gallery.maps is not None and len(positions):
        folder = generation_folder(settings, gallery_id, gallery.generation)
        recall = estimate_candidate_recall(
            open_store(folder, size, count=gallery.next_position),
            open_maps(folder, gallery.maps, count=gallery.next_position),
            head,
            positions,
            np.random.default_rng(0),
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if recall is not None:
            statistics = {"candidate_recall": {**asdict(recall), "revision": gallery.revision}}
    with database.write() as session:
        lock_gallery(session, gallery_id).statistics = statistics
