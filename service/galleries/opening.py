"""A gallery opened to be searched: its vectors, its index, and camera and time of each image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from reid_core.retrieval.snapshot import NO_TIME, Snapshot
from service.db.tables import Gallery, GalleryImage
from service.db.types import utc_text
from service.galleries.files import embedding_size, generation_folder, load_index_file, open_store
from service.settings import Settings

_ROWS_AT_ONCE = 500
"""Few: tuples that live longer are looked through by Python's garbage collector again and again, for seconds."""


def open_snapshot(session: Session, settings: Settings, gallery: Gallery) -> Snapshot:
    """The gallery's generation in use; raises IndexCorrupt or FileNotFoundError where its files are not as it says."""
    folder = generation_folder(settings, gallery.id, gallery.generation)
    store = open_store(folder, embedding_size(session, gallery), count=gallery.next_position)
    cameras, times, empty = read_columns(session, gallery.id, 0, gallery.next_position)
    index = load_index_file(folder, gallery.index) if gallery.index else None
    return Snapshot.open(store, cameras, times, index).without(empty)


def read_columns(
    session: Session, gallery_id: str, start: int, stop: int
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Camera and time of the images at positions `start` up to `stop`, and those positions that hold none."""
    cameras = np.full(stop - start, "", object)
    times = np.full(stop - start, NO_TIME)
    taken = np.zeros(stop - start, np.bool_)
    names: dict[str | None, str] = {None: ""}  # one string for all images of a camera
    rows = session.execute(_rows(gallery_id, start, stop), execution_options={"yield_per": _ROWS_AT_ONCE})
    for page in rows.partitions():
        positions, page_cameras, moments = zip(*page, strict=True)
        places = np.array(positions, np.int64) - start
        cameras[places] = [names.setdefault(camera, camera) for camera in page_cameras]
        times[places] = np.array(moments, "datetime64[us]").view(np.int64)
        taken[places] = True
    return cameras.tolist(), times, start + np.flatnonzero(~taken)


def _rows(gallery_id: str, start: int, stop: int) -> Select[int, str | None, str]:
    columns = select(GalleryImage.position, GalleryImage.camera, utc_text(GalleryImage.captured_at))
    return columns.where(
        GalleryImage.gallery_id == gallery_id, GalleryImage.position >= start, GalleryImage.position < stop
    )
