"""Proposed persons over the API: a job finds them, requests look at them, accept, split or reject them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, accepted, prefix_of, require
from service.api.pagination import list_page
from service.auth import Caller
from service.db import audit
from service.db.lookup import find
from service.db.tables import Cluster, ClusterImage, Gallery, GalleryImage
from service.galleries.cluster_schemas import (
    AcceptBody,
    AcceptedAnswer,
    ClusterAnswer,
    ClusterSplitBody,
    SplitAnswer,
)
from service.galleries.clusters import find_cluster
from service.galleries.image_schemas import GalleryImageAnswer
from service.galleries.reviewing import accept_cluster, reject_cluster, split_cluster
from service.jobs import enqueue
from service.jobs.body_schemas import ClusterBody
from service.jobs.receivers import check_url
from service.jobs.schemas import JobAnswer
from service.schemas import Listing

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]


@router.post("/{gallery_id}/cluster", status_code=202)
def cluster_images(
    gallery_id: str,
    request: Request,
    response: Response,
    database: DatabaseDep,
    caller: Writer,
    settings: SettingsDep,
    body: ClusterBody | None = None,
) -> JobAnswer:
    """Group the images without identity into proposed persons, by a job; they take the place of those before."""
    asked = body or ClusterBody()
    if asked.webhook is not None:
        check_url(settings, asked.webhook.url)
    webhook = asked.webhook.values if asked.webhook else (None, None)
    with database.write() as session:
        gallery = find(session, Gallery, gallery_id)
        spec = {"gallery": gallery.id, "clustering": asked.model_dump(exclude={"webhook"})}
        job = enqueue(session, "cluster", spec, webhook=webhook)
        audit.record(session, key_id=caller.key_id, action="gallery.cluster", target=gallery.id)
        session.flush()
        answer = JobAnswer.of(job, prefix_of(request))
    request.app.state.send(answer.id, answer.kind)
    return accepted(response, answer, answer.links.self)


@router.get("/{gallery_id}/clusters")
def list_clusters(
    gallery_id: str, request: Request, database: DatabaseDep, page: PageDep, _caller: Reader
) -> Listing[ClusterAnswer]:
    """Proposed persons, surest first; those of a split come last."""
    prefix = prefix_of(request)
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        proposed = select(Cluster).where(Cluster.gallery_id == gallery.id, Cluster.rejected_at.is_(None))
        return list_page(
            session,
            proposed,
            Cluster.id,
            page,
            answer_of=lambda cluster: ClusterAnswer.of(session, cluster, prefix),
        )


@router.get("/{gallery_id}/clusters/{cluster_id}")
def read_cluster(
    gallery_id: str, cluster_id: str, request: Request, database: DatabaseDep, _caller: Reader
) -> ClusterAnswer:
    """One proposed person."""
    with database.read() as session:
        return ClusterAnswer.of(session, find_cluster(session, gallery_id, cluster_id), prefix_of(request))


@router.get("/{gallery_id}/clusters/{cluster_id}/images")
def list_cluster_images(
    gallery_id: str, cluster_id: str, request: Request, database: DatabaseDep, page: PageDep, _caller: Reader
) -> Listing[GalleryImageAnswer]:
    """The images of a proposed person in the order in which they came."""
    prefix = prefix_of(request)
    with database.read() as session:
        cluster = find_cluster(session, gallery_id, cluster_id)
        entries = select(ClusterImage.image_id).where(ClusterImage.cluster_id == cluster.id)
        return list_page(
            session,
            select(GalleryImage).where(GalleryImage.id.in_(entries)),
            GalleryImage.id,
            page,
            answer_of=lambda image: GalleryImageAnswer.of(image, prefix),
        )


@router.post("/{gallery_id}/clusters/{cluster_id}/accept")
def accept(
    gallery_id: str, cluster_id: str, body: AcceptBody, request: Request, database: DatabaseDep, caller: Writer
) -> AcceptedAnswer:
    """Give the images an identity, new or known; images that are not named stay in the cluster."""
    with database.write() as session:
        named = accept_cluster(session, gallery_id, cluster_id, body.identity, body.images, key_id=caller.key_id)
        session.flush()
        session.expire_all()
        left = session.get(Cluster, cluster_id)
        return AcceptedAnswer(
            identity=body.identity,
            images=named,
            revision=find(session, Gallery, gallery_id).revision,
            cluster=ClusterAnswer.of(session, left, prefix_of(request)) if left else None,
        )


@router.post("/{gallery_id}/clusters/{cluster_id}/split")
def split(
    gallery_id: str, cluster_id: str, body: ClusterSplitBody, request: Request, database: DatabaseDep, caller: Writer
) -> SplitAnswer:
    """Make two or more proposed persons of one."""
    with database.write() as session:
        parts = split_cluster(session, gallery_id, cluster_id, body.groups, key_id=caller.key_id)
        clusters = [session.get_one(Cluster, part) for part in parts]
        return SplitAnswer(items=[ClusterAnswer.of(session, cluster, prefix_of(request)) for cluster in clusters])


@router.post("/{gallery_id}/clusters/{cluster_id}/reject", status_code=204)
def reject(gallery_id: str, cluster_id: str, database: DatabaseDep, caller: Writer) -> None:
    """Say that this is no person: the cluster goes, and the same images are not proposed again."""
    with database.write() as session:
        reject_cluster(session, gallery_id, cluster_id, key_id=caller.key_id)
