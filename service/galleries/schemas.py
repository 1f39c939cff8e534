"""The bodies and answers of the gallery routes."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field, with_config
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from reid_core.data.records import Split
from reid_core.retrieval.maps import map_bytes
from service.db.tables import Gallery, Job
from service.schemas import Answer, Body, Name, Omittable, Reference, SelfLink, Shape, Time, example

State = Literal["empty", "building", "ready"]


class DatasetSplit(Body):
    """One split of a data set, by its id or name."""

    id: Reference
    split: Split


class GalleryBody(Body):
    """A new gallery. With `dataset` a job adds that split's images to it."""

    name: Name
    model: Reference
    reranker: Reference | None = Field(
        default=None, description="a model that matches locally; left out, `model` itself where it does"
    )
    maps: Literal["float16", "int8", "none"] | None = Field(
        default=None,
        description="how the re-ranker's local features are kept: float16 if left out; int8 takes half, rounded",
    )
    index: Literal["auto", "flat", "rabitq", "hnsw", "ivfpq"] = Field(
        default="auto", description="auto: exact for as long as that is quick"
    )
    dataset: DatasetSplit | None = None
    retention_days: int | None = Field(default=None, ge=1, le=36_500, description="images older than this are erased")
    keep_images: bool = Field(
        default=True, description="keep uploaded images, to show them and to embed them again when rebuilding"
    )


class SplitBody(Body):
    """A whole split to be added by a job."""

    dataset: Reference
    split: Split


class MapsAnswer(Answer):
    """The form in which a gallery keeps the re-ranker's local features."""

    dtype: str
    shape: Shape = Field(description="height, width, channels")
    bytes_per_picture: int


class IndexRecallAnswer(Answer):
    """The shares of the 10 and of the 100 closest images that searches through the index find, of exact search's.

    Means over as many of the gallery's own vectors as `queries`, each left out itself.
    """

    at_10: float
    at_100: float
    queries: int


class IndexAnswer(Answer):
    """A gallery's index; `kind` is the one in use, `built_images` how many images it covers."""

    requested: str
    kind: str
    built_images: int
    parameters: dict[str, int] = Field(description="by which the index was built and is searched; {} for flat")
    recall: IndexRecallAnswer | None = Field(
        description="measured when the index was built; null for exact search, and for an index of an earlier version"
    )

    @classmethod
    def of(cls, gallery: Gallery) -> IndexAnswer:
        """The index as clients see it; those of earlier versions tell neither parameters nor recall."""
        built = gallery.index or {"kind": "flat", "images": 0}
        return cls(
            requested=gallery.index_kind,
            kind=built["kind"],
            built_images=built["images"],
            parameters=built.get("parameters") or {},
            recall=built.get("recall"),
        )


@with_config(extra="allow")
class RecallAnswer(TypedDict, total=False):
    """Share `value` of the re-ranker's best results that lie among the candidates, measured at `revision`."""

    value: float
    candidates: int
    queries: int
    pictures: int
    revision: int


@with_config(extra="allow")
class StatisticsAnswer(TypedDict, total=False):
    """The measurements of the last index job."""

    candidate_recall: RecallAnswer


class GalleryLinks(SelfLink):
    """Links of a gallery."""

    images: str
    model: str
    job: Omittable[str] = None


class GalleryAnswer(Answer):
    """A gallery: its state, its model and re-ranker, its index."""

    model_config = example(
        id="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        name="hall",
        state="ready",
        images=240,
        revision=7,
        model="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        reranker=None,
        maps=None,
        index={"requested": "auto", "kind": "flat", "built_images": 0, "parameters": {}, "recall": None},
        statistics=None,
        keep_images=True,
        retention_days=30,
        created_at="2026-01-31T12:00:00Z",
        job=None,
        links={"self": "/galleries/gal_01…", "images": "/galleries/gal_01…/images", "model": "/models/mdl_01…"},
    )

    id: str
    name: str
    state: State
    images: int
    revision: int = Field(description="counts the changes")
    model: str
    reranker: str | None
    maps: MapsAnswer | None
    index: IndexAnswer
    statistics: StatisticsAnswer | None
    keep_images: bool
    retention_days: int | None
    created_at: Time
    job: str | None
    links: GalleryLinks

    @classmethod
    def of(cls, session: Session, gallery: Gallery, prefix: str = "") -> GalleryAnswer:
        """The gallery as clients see it; `prefix` is put before links."""
        here = f"{prefix}/galleries/{gallery.id}"
        return cls(
            id=gallery.id,
            name=gallery.name,
            state=_state(session, gallery),
            images=gallery.images,
            revision=gallery.revision,
            model=gallery.model_id,
            reranker=gallery.reranker_id,
            maps=MapsAnswer(**gallery.maps, bytes_per_picture=map_bytes(**gallery.maps)) if gallery.maps else None,
            index=IndexAnswer.of(gallery),
            statistics=cast("StatisticsAnswer | None", gallery.statistics),
            keep_images=gallery.keep_images,
            retention_days=gallery.retention_days,
            created_at=gallery.created_at,
            job=gallery.job_id,
            links=GalleryLinks(
                self=here,
                images=f"{here}/images",
                model=f"{prefix}/models/{gallery.model_id}",
                job=f"{prefix}/jobs/{gallery.job_id}" if gallery.job_id else None,
            ),
        )


def _state(session: Session, gallery: Gallery) -> State:
    job = session.get(Job, gallery.job_id) if gallery.job_id else None
    if job is not None and job.finished_at is None:
        return "building"
    return "ready" if gallery.images else "empty"
