"""Proposed persons: the rows of a gallery's clusters, proposed by a job, then accepted, split or rejected.

A cluster lists images without identity only: one that is erased or named is in none any more, and a cluster without
images is gone. An image is in one proposed cluster at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.tables import Cluster, ClusterImage, Gallery, GalleryImage
from service.errors import not_found

_ROWS_PER_STATEMENT = 5000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Images that may show one person, by their ids; `confidence` 0 to 1, None where a person has said so."""

    images: tuple[str, ...]
    confidence: float | None


def find_cluster(session: Session, gallery_key: str, cluster_id: str) -> Cluster:
    """The proposed cluster of that gallery; raises 404, also for one that was accepted, rejected or split."""
    gallery, cluster = find(session, Gallery, gallery_key), session.get(Cluster, cluster_id)
    if cluster is None or cluster.gallery_id != gallery.id or cluster.rejected_at is not None:
        raise not_found("cluster", cluster_id)
    return cluster


def images_of(session: Session, cluster_id: str) -> list[str]:
    """The ids of the cluster's images in the order in which they came."""
    of_cluster = select(ClusterImage.image_id).where(ClusterImage.cluster_id == cluster_id)
    return list(session.scalars(of_cluster.order_by(ClusterImage.image_id)))


def replace_proposals(session: Session, gallery: Gallery, proposals: Sequence[Proposal]) -> list[Proposal]:
    """Puts new proposed clusters in the place of those before, in the transaction of `session`, which has locked
    `gallery`; returns those that it put there.

    Left out are images that have been erased or named since, what is then one image only, and proposals all of whose
    images are of one rejected cluster.
    """
    rejected = _read_rejected(session, gallery.id)
    session.execute(delete(Cluster).where(Cluster.gallery_id == gallery.id, Cluster.rejected_at.is_(None)))
    unnamed = select(GalleryImage.id).where(GalleryImage.gallery_id == gallery.id, GalleryImage.identity.is_(None))
    there = set(session.scalars(unnamed))
    current = [Proposal(tuple(image for image in each.images if image in there), each.confidence) for each in proposals]
    kept = [each for each in current if len(each.images) > 1 and not _was_rejected(each, rejected)]
    add_clusters(session, gallery.id, kept)
    return kept


def add_clusters(session: Session, gallery_id: str, proposals: Sequence[Proposal]) -> list[str]:
    """Adds a cluster for each of these, in their order; their ids."""
    ids = new_ids("clu", len(proposals))
    session.add_all(
        Cluster(id=key, gallery_id=gallery_id, confidence=each.confidence)
        for key, each in zip(ids, proposals, strict=True)
    )
    session.flush()
    entries = [
        {"cluster_id": key, "image_id": image}
        for key, each in zip(ids, proposals, strict=True)
        for image in each.images
    ]
    for page in _pages(entries):
        session.execute(insert(ClusterImage), page)
    return ids


def reject(cluster: Cluster) -> None:
    """Hides the cluster; its images are not proposed as one person again."""
    cluster.rejected_at = utc_now()


def take_from_clusters(session: Session, gallery_id: str, image_ids: Sequence[str]) -> None:
    """Takes these images out of the gallery's clusters, and away clusters that have none left."""
    touched = clusters_with(session, gallery_id, image_ids)
    of_gallery = ClusterImage.cluster_id.in_(select(Cluster.id).where(Cluster.gallery_id == gallery_id))
    for page in _pages(image_ids):
        session.execute(delete(ClusterImage).where(ClusterImage.image_id.in_(page), of_gallery))
    drop_empty_clusters(session, touched)


def clusters_with(session: Session, gallery_id: str, image_ids: Sequence[str]) -> set[str]:
    """The ids of the gallery's clusters that have one of these images, rejected ones too."""
    clusters = select(ClusterImage.cluster_id).join(Cluster).where(Cluster.gallery_id == gallery_id).distinct()
    pages = (session.scalars(clusters.where(ClusterImage.image_id.in_(page))) for page in _pages(image_ids))
    return {cluster for page in pages for cluster in page}


def drop_empty_clusters(session: Session, cluster_ids: Collection[str]) -> None:
    """Deletes those of these clusters that have no images left."""
    has_images = exists().where(ClusterImage.cluster_id == Cluster.id)
    for page in _pages(sorted(cluster_ids)):
        session.execute(delete(Cluster).where(Cluster.id.in_(page), ~has_images))


def count_entries(session: Session, image_ids: Sequence[str]) -> int:
    """The number of entries that these images have in clusters, rejected ones too."""
    counts = (
        select(func.count()).select_from(ClusterImage).where(ClusterImage.image_id.in_(page))
        for page in _pages(image_ids)
    )
    return sum(session.scalar(count) or 0 for count in counts)


def _read_rejected(session: Session, gallery_id: str) -> dict[str, set[str]]:
    """The rejected clusters of every image that is in some."""
    entries = (
        select(ClusterImage.image_id, ClusterImage.cluster_id)
        .join(Cluster)
        .where(Cluster.gallery_id == gallery_id, Cluster.rejected_at.is_not(None))
    )
    rejected: dict[str, set[str]] = {}
    for image, cluster in session.execute(entries):
        rejected.setdefault(image, set()).add(cluster)
    return rejected


def _was_rejected(proposal: Proposal, rejected: dict[str, set[str]]) -> bool:
    return bool(set.intersection(*(rejected.get(image, set()) for image in proposal.images)))


def _pages(rows: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (rows[start : start + _ROWS_PER_STATEMENT] for start in range(0, len(rows), _ROWS_PER_STATEMENT))
