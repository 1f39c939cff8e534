"""Reviewing proposed persons: a cluster is accepted under an identity, split or rejected."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from reid_core.errors import Fault
from service.db import audit
from service.db.tables import Cluster
from service.errors import Problem, sentence
from service.galleries.clusters import Proposal, add_clusters, find_cluster, images_of, reject
from service.galleries.labelling import set_labels
from service.galleries.lifecycle import lock_gallery


def accept_cluster(
    session: Session,
    gallery_key: str,
    cluster_id: str,
    identity: str,
    images: Sequence[str] | None,
    *,
    key_id: str | None,
) -> int:
    """Gives the cluster's images the identity, or only those of `images`; how many. The cluster keeps the others.

    Raises 404, 422 for an image that is not of the cluster.
    """
    cluster, members = _open(session, gallery_key, cluster_id)
    accepted = members if images is None else _check_members(members, [images], "/images")[0]
    gallery = lock_gallery(session, cluster.gallery_id)
    labels = {"identity": identity}
    return set_labels(session, gallery, accepted, labels, key_id=key_id, action="gallery.accept_cluster")


def split_cluster(
    session: Session, gallery_key: str, cluster_id: str, groups: Sequence[Sequence[str]], *, key_id: str | None
) -> list[str]:
    """Puts a cluster for each group of its images in its place; their ids. Images of no group are left alone.

    Raises 404, 422 for an image that is not of the cluster, or named twice.
    """
    cluster, members = _open(session, gallery_key, cluster_id)
    proposals = [Proposal(tuple(group), None) for group in _check_members(members, groups, "/groups")]
    session.delete(cluster)
    session.flush()
    audit.record(
        session, key_id=key_id, action="gallery.split_cluster", target=cluster.gallery_id, clusters=len(groups)
    )
    return add_clusters(session, cluster.gallery_id, proposals)


def reject_cluster(session: Session, gallery_key: str, cluster_id: str, *, key_id: str | None) -> None:
    """Hides the cluster: its images are not proposed as one person again. Raises 404."""
    cluster, members = _open(session, gallery_key, cluster_id)
    reject(cluster)
    audit.record(
        session, key_id=key_id, action="gallery.reject_cluster", target=cluster.gallery_id, images=len(members)
    )


def _open(session: Session, gallery_key: str, cluster_id: str) -> tuple[Cluster, list[str]]:
    """The cluster with its images, while no other transaction changes its gallery."""
    lock_gallery(session, find_cluster(session, gallery_key, cluster_id).gallery_id)
    session.expire_all()  # another may have come first
    cluster = find_cluster(session, gallery_key, cluster_id)
    return cluster, images_of(session, cluster.id)


def _check_members(members: Sequence[str], groups: Sequence[Sequence[str]], pointer: str) -> list[list[str]]:
    """The groups, each of images of the cluster that no other group has."""
    left, faults = set(members), []
    for image in (image for group in groups for image in group):
        if image not in left:
            reason = "is named twice" if image in members else "is not of this cluster"
            faults.append(Fault(pointer, "not-of-the-cluster", f"image {image!r} {reason}"))
        left.discard(image)
    if faults:
        raise Problem("invalid-request", sentence(faults[0].message), errors=faults)
    return [list(group) for group in groups]
