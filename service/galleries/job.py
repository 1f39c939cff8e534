"""The course of an index job: it adds a split to a gallery, or encodes the gallery anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from reid_core.engines.serving import Served
from reid_core.errors import Stopped
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery
from service.galleries.encoding import gallery_encoder
from service.galleries.index import index_in_place
from service.galleries.reencoding import rebuild
from service.galleries.retention import clear_indexing, remove_leftovers_of
from service.galleries.split_import import add_split
from service.galleries.staging import indexing_folder
from service.galleries.statistics import refresh_statistics
from service.settings import Settings
from service.storage import claim

_WAIT_SECONDS = 0.5


def index_gallery(
    database: Database,
    settings: Settings,
    gallery_id: str,
    *,
    add: Mapping[str, str] | None,
    embed: bool = True,
    model_for: Callable[[str], Served],
    progress: Callable[[str], Callable[[int, int], None]],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Adds the split `add` ({dataset, split}), or without it rebuilds the gallery; then its index covers all images.

    With `embed` false it only builds the index, over the vectors that are there.

    Safe to be run again after it ended anywhere. Jobs of the same gallery wait for each other.

    Args:
        model_for: loads the model with that id.
        progress: (phase) -> what takes (done, total) of that phase: `embed`, then `statistics` where there are maps.

    Returns:
        images, revision and index kind of the gallery, and counts: `added` and `unreadable`, or `embedded` and `kept`,
        or none.

    Raises:
        Problem: 404 once the gallery or the data set is gone.
        Stopped: `should_stop` said so; the images done so far need not be done again.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
    with _turn(database, settings, gallery.id, should_stop):
        remove_leftovers_of(database, settings, gallery.id)
        if not embed:
            index_in_place(database, settings, gallery.id, should_stop=should_stop)
            return _result(database, gallery.id, {})
        model_for = cache(model_for)  # the re-ranker may be the gallery's own model
        encoder = gallery_encoder(gallery, lambda model_id: model_for(model_id).encoder)
        if add is not None:
            counts = add_split(
                database, settings, gallery.id, add, encoder, on_progress=progress("embed"), should_stop=should_stop
            )
            index_in_place(database, settings, gallery.id, should_stop=should_stop)
        else:
            counts = rebuild(
                database, settings, gallery.id, encoder, on_progress=progress("embed"), should_stop=should_stop
            )
        head = model_for(gallery.reranker_id).head if gallery.reranker_id else None
        if head is not None:
            refresh_statistics(
                database, settings, gallery.id, head, on_progress=progress("statistics"), should_stop=should_stop
            )
    return _result(database, gallery.id, counts)


def _result(database: Database, gallery_id: str, counts: Mapping[str, int]) -> dict[str, Any]:
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
    kind = gallery.index["kind"] if gallery.index else "flat"
    return {"images": gallery.images, "revision": gallery.revision, "index": kind, **counts}


@contextmanager
def _turn(database: Database, settings: Settings, gallery_id: str, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Waits until no other job indexes the gallery, and keeps others waiting until the block ends."""
    try:
        while True:
            with claim(indexing_folder(settings, gallery_id)) as free:
                if free:
                    yield
                    return
            if should_stop():
                raise Stopped
            time.sleep(_WAIT_SECONDS)
    except BaseException:
        clear_indexing(database, settings, gallery_id)
        raise
