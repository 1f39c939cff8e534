"""The bodies and answers of the cluster routes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Cluster, ClusterImage, GalleryImage
from service.galleries.image_schemas import content_link
from service.schemas import Answer, Body, Label, Reference, SelfLink, Time, example


class AcceptBody(Body):
    """A person, and which of the cluster's images show it."""

    identity: Label
    images: Annotated[list[Reference], Field(min_length=1)] | None = Field(
        default=None, description="null: all; images that are not named stay in the cluster"
    )


class ClusterSplitBody(Body):
    """The images of two or more persons of a cluster; images that are not named are left alone."""

    groups: Annotated[
        list[Annotated[list[Reference], Field(min_length=1)]],
        Field(min_length=2, max_length=1000, description="ids of images, each in one group"),
    ]


class ClusterLinks(SelfLink):
    """Links of a cluster, and of its cover's file; `cover` is null where none is kept."""

    images: str
    cover: str | None


class ClusterAnswer(Answer):
    """A proposed person: images without identity that may show one."""

    model_config = example(
        id="clu_01jb2c3d4e5f6g7h8j9k0m1n2p",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        images=7,
        cover="img_01jb2c3d4e5f6g7h8j9k0m1n2p",
        cameras=["1", "3"],
        first_seen="2026-01-31T12:00:00Z",
        last_seen="2026-01-31T12:04:10Z",
        confidence=0.94,
        created_at="2026-02-01T08:00:00Z",
        links={
            "self": "/galleries/gal_01…/clusters/clu_01…",
            "images": "/galleries/gal_01…/clusters/clu_01…/images",
            "cover": "/galleries/gal_01…/images/img_01…/content",
        },
    )

    id: str
    gallery: str
    images: int
    cover: str = Field(description="the image with the most pixels, of several the first")
    cameras: list[str] = Field(description="those that are known")
    first_seen: Time | None
    last_seen: Time | None
    confidence: float | None = Field(
        description="0 to 1; 1 where a little looser and a little stricter clustering give the same; null after a split"
    )
    created_at: Time
    links: ClusterLinks

    @classmethod
    def of(cls, session: Session, cluster: Cluster, prefix: str = "") -> ClusterAnswer:
        """The cluster as clients see it; `prefix` is put before links."""
        here = f"{prefix}/galleries/{cluster.gallery_id}/clusters/{cluster.id}"
        of_cluster = GalleryImage.id.in_(
            select(ClusterImage.image_id).where(ClusterImage.cluster_id == cluster.id).scalar_subquery()
        )
        seen = func.min(GalleryImage.captured_at), func.max(GalleryImage.captured_at)
        count, first, last = session.execute(select(func.count(), *seen).where(of_cluster)).one()
        cameras = select(GalleryImage.camera).distinct().where(of_cluster, GalleryImage.camera.is_not(None))
        size = GalleryImage.width * GalleryImage.height
        cover = session.scalars(
            select(GalleryImage).where(of_cluster).order_by(size.desc(), GalleryImage.id).limit(1)
        ).one()
        return cls(
            id=cluster.id,
            gallery=cluster.gallery_id,
            images=count,
            cover=cover.id,
            cameras=sorted(camera for camera in session.scalars(cameras) if camera),
            first_seen=first,
            last_seen=last,
            confidence=cluster.confidence,
            created_at=cluster.created_at,
            links=ClusterLinks(self=here, images=f"{here}/images", cover=content_link(cover, prefix)),
        )


class AcceptedAnswer(Answer):
    """The images that were given an identity, and the gallery's revision after it."""

    identity: str
    images: int
    revision: int
    cluster: ClusterAnswer | None = Field(description="with the images that are left; null where none are")


class SplitAnswer(Answer):
    """The clusters that a cluster was split into, in the order of the groups."""

    items: list[ClusterAnswer]
