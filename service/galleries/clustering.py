"""The course of a cluster job: a gallery's images without identity are grouped into proposed persons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.clustering import Clustering, Clusters, cluster_embeddings
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.clusters import Proposal, replace_proposals
from service.galleries.files import embedding_size, generation_folder, open_store
from service.galleries.lifecycle import lock_gallery
from service.galleries.reading import read_current
from service.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class Unnamed:
    """The images of a gallery without identity, in the order in which they came.

    Attributes:
        ids: of N images.
        cameras: (N,) codes, -1 where unknown.
        embeddings: (N, D) of unit length.
    """

    ids: tuple[str, ...]
    cameras: NDArray[np.int64]
    embeddings: NDArray[np.float32]


def cluster_gallery(
    database: Database,
    settings: Settings,
    gallery_id: str,
    clustering: Clustering,
    *,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Puts new proposed persons in the place of those before, in one transaction.

    Safe to be run again after it ended anywhere.

    Args:
        on_progress: gets (images done, images in all) while neighbours are sought.

    Returns:
        The number of images without identity, of clusters, and of images that are in none.

    Raises:
        Problem: 404 once the gallery is gone.
        IndexCorrupt: its files are damaged.
        Stopped: `should_stop` said so.
    """
    unnamed = _read_unnamed(database, settings, gallery_id)
    clusters = cluster_embeddings(
        unnamed.embeddings, clustering, cameras=unnamed.cameras, on_progress=on_progress, should_stop=should_stop
    )
    with database.write() as session:
        kept = replace_proposals(session, lock_gallery(session, gallery_id), _as_proposals(unnamed.ids, clusters))
    inside = sum(len(each.images) for each in kept)
    return {"images": len(unnamed.ids), "clusters": len(kept), "left_alone": len(unnamed.ids) - inside}


def _as_proposals(ids: tuple[str, ...], clusters: Clusters) -> list[Proposal]:
    """The clusters, surest first, of equally sure ones the largest."""
    members: list[list[str]] = [[] for _ in range(clusters.count)]
    for image, label in zip(ids, clusters.labels.tolist(), strict=True):
        if label >= 0:
            members[label].append(image)
    found = [Proposal(tuple(each), sure) for each, sure in zip(members, clusters.confidence.tolist(), strict=True)]
    return sorted(found, key=lambda each: (-(each.confidence or 0), -len(each.images)))


def _read_unnamed(database: Database, settings: Settings, gallery_id: str) -> Unnamed:
    return read_current(database, gallery_id, lambda session, gallery: _read(session, settings, gallery))


def _read(session: Session, settings: Settings, gallery: Gallery) -> Unnamed:
    unnamed = select(GalleryImage.id, GalleryImage.camera, GalleryImage.position).where(
        GalleryImage.gallery_id == gallery.id, GalleryImage.identity.is_(None)
    )
    rows = session.execute(unnamed.order_by(GalleryImage.position)).all()
    size = embedding_size(session, gallery)
    if not rows:
        return Unnamed((), np.empty(0, np.int64), np.empty((0, size), np.float32))
    store = open_store(generation_folder(settings, gallery.id, gallery.generation), size, count=gallery.next_position)
    ids, cameras, positions = zip(*rows, strict=True)
    codes = {camera: code for code, camera in enumerate(sorted(set(cameras) - {None, ""}))}
    return Unnamed(ids, np.array([codes.get(camera, -1) for camera in cameras]), store.read(positions))
