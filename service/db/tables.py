"""The tables: one class each, columns only. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Float, ForeignKey, Index, LargeBinary, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.clock import utc_now
from service.db.types import Counter, Json, UtcDateTime

JsonObject = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime, JsonObject: Json, list[str]: Json}


class Dataset(Base):
    """Images of persons in splits. `state`: pending, ready, invalid; `format` was asked, `detected_format` found.

    `declaration` is what was said of it besides, {table, layout, columns, encoding, trained}, None where nothing was.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    path: Mapped[str]
    format: Mapped[str]
    declaration: Mapped[JsonObject | None]
    detected_format: Mapped[str | None]
    variant: Mapped[str | None]
    state: Mapped[str]
    splits: Mapped[JsonObject | None]
    fingerprint: Mapped[str | None]
    report: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    uploaded: Mapped[bool]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DatasetImage(Base):
    """One image of a data set; `path` is relative to the data set's, `position` counts within the split."""

    __tablename__ = "dataset_images"
    __table_args__ = (
        UniqueConstraint("dataset_id", "split", "position"),
        Index(None, "dataset_id", "identity"),
        Index(None, "dataset_id", "camera"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    split: Mapped[str]
    position: Mapped[int]
    path: Mapped[str]
    identity: Mapped[str]
    camera: Mapped[str]
    captured_at: Mapped[datetime | None]
    frame: Mapped[int | None]
    clothes: Mapped[str | None]
    sha256: Mapped[str | None]
    num_bytes: Mapped[int | None] = mapped_column(BigInteger)
    width: Mapped[int | None]
    height: Mapped[int | None]


class Job(Base):
    """A piece of work. `attempt` is the fence: a process that runs attempt 1 may not write once it is 2."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "state", "queued_at"), Index(None, "kind"))

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    state: Mapped[str]
    spec: Mapped[JsonObject]
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    progress: Mapped[JsonObject | None]
    metrics: Mapped[JsonObject | None]
    result: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(default=utc_now)
    sent_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    webhook_url: Mapped[str | None]
    webhook_secret: Mapped[str | None]


class JobDataset(Base):
    """A data set that a job reads, so that it is not deleted under it."""

    __tablename__ = "job_datasets"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True, index=True)


class JobEvent(Base):
    """An event of a job; `id` rises, is also the id of the server-sent event, and never comes twice."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Counter, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    kind: Mapped[str]
    data: Mapped[JsonObject]


class JobMetric(Base):
    """One point of one curve."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=False)
    value: Mapped[float] = mapped_column(Float(53))


class WebhookDelivery(Base):
    """A job's end on its way to the job's webhook: `waiting` while `due_at` says when it is tried (again), then
    `delivered` or `failed`. `status` and `fault` are of the last attempt; `receiver` is the scheme, host and port.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    receiver: Mapped[str]
    event: Mapped[str]
    body: Mapped[str]
    state: Mapped[str] = mapped_column(default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None] = mapped_column(default=utc_now, index=True)
    status: Mapped[int | None]
    fault: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class Model(Base):
    """A trained network; `files` is `{name: {bytes, sha256}}` under the model's folder.

    `engine` is what came of exporting it for searches when it was published; None for models from before.
    """

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    method: Mapped[str]
    settings: Mapped[JsonObject]
    lineage: Mapped[JsonObject]
    embedding_size: Mapped[int]
    preprocessing: Mapped[JsonObject]
    files: Mapped[JsonObject]
    engine: Mapped[JsonObject | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Evaluation(Base):
    """The accuracy of a model on a data set, with the protocol; the data set may be gone since."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    dataset_id: Mapped[str] = mapped_column(index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    rerank: Mapped[str]
    reranker_id: Mapped[str | None]
    metrics: Mapped[JsonObject]
    protocol: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Gallery(Base):
    """Images to search in. `revision` counts changes, `generation` re-embeddings, `images` what is searchable.

    `maps` is how the re-ranker's local features are kept ({dtype, shape}), None where they are not; `statistics` what
    the last index job measured. Once `deleted_at` is set nobody finds it any more, and its rows go page by page.
    `searched_at` is when it was last searched, to within seconds. `edits` counts images whose labels were changed.
    """

    __tablename__ = "galleries"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    reranker_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    index_kind: Mapped[str]
    index: Mapped[JsonObject | None]
    maps: Mapped[JsonObject | None]
    statistics: Mapped[JsonObject | None]
    keep_images: Mapped[bool]
    retention_days: Mapped[int | None]
    revision: Mapped[int] = mapped_column(default=0)
    generation: Mapped[int] = mapped_column(default=0)
    next_position: Mapped[int] = mapped_column(default=0)
    images: Mapped[int] = mapped_column(default=0)
    deletions: Mapped[int] = mapped_column(default=0)
    edits: Mapped[int] = mapped_column(default=0)
    searched_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class GalleryImage(Base):
    """One image of a gallery; `position` is its number in the index, `file` the stored image if one is kept.

    `rebuilt_position` is its number in the generation that is being built, once its new vector lies there.
    `edited_revision` is the gallery's revision that last changed its labels, None while they are as they came.
    """

    __tablename__ = "gallery_images"
    __table_args__ = (
        UniqueConstraint("gallery_id", "position"),
        UniqueConstraint("gallery_id", "dataset_image_id"),
        Index(None, "gallery_id", "identity"),
        Index(None, "gallery_id", "camera"),
        Index(None, "gallery_id", "external_id"),
        Index(None, "gallery_id", "created_at"),
        Index(
            "ix_gallery_images_edited",
            "gallery_id",
            "edited_revision",
            sqlite_where=text("edited_revision IS NOT NULL"),
            postgresql_where=text("edited_revision IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    position: Mapped[int]
    rebuilt_position: Mapped[int | None]
    identity: Mapped[str | None]
    camera: Mapped[str | None]
    captured_at: Mapped[datetime | None]
    external_id: Mapped[str | None]
    filename: Mapped[str]
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    dataset_image_id: Mapped[str | None]
    file: Mapped[str | None]
    added_revision: Mapped[int]
    edited_revision: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Cluster(Base):
    """A proposed person: images without identity that a cluster job or a split has put together.

    `confidence` is None for one that a person has made. Once `rejected_at` is set it is shown to nobody, and is kept so
    that the same images are not proposed again.
    """

    __tablename__ = "clusters"

    id: Mapped[str] = mapped_column(primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), index=True)
    confidence: Mapped[float | None] = mapped_column(Float(53))
    rejected_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ClusterImage(Base):
    """An image of a cluster; it goes with either, and when the image is given an identity."""

    __tablename__ = "cluster_images"

    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    image_id: Mapped[str] = mapped_column(
        ForeignKey("gallery_images.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class ErasedImage(Base):
    """The id of an erased image, and nothing else of it: asking for it again is answered with 410.

    `position` in `generation` is where it lay, `revision` the gallery's once it was gone: searches learn of it so.
    """

    __tablename__ = "erased_images"
    __table_args__ = (Index(None, "gallery_id", "revision"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), index=True)
    generation: Mapped[int | None]
    position: Mapped[int | None]
    revision: Mapped[int | None]
    erased_at: Mapped[datetime] = mapped_column(default=utc_now)


class Feedback(Base):
    """A pair of a gallery's images, the smaller id first, and whether somebody said that they show the same person."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("first_image_id", "second_image_id"),
        Index(None, "second_image_id"),
        Index(None, "gallery_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    first_image_id: Mapped[str]
    second_image_id: Mapped[str]
    same: Mapped[bool]
    key_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class PendingErasure(Base):
    """The place of an erased image's bytes that are still to be removed; `id` is the image's.

    `position` counts in `generation`, `rebuilt_position` in the one that was being built after it.
    """

    __tablename__ = "pending_erasures"

    id: Mapped[str] = mapped_column(primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), index=True)
    generation: Mapped[int]
    position: Mapped[int]
    rebuilt_position: Mapped[int | None]
    file: Mapped[str | None]


class PendingRemoval(Base):
    """A file or folder, relative to the home, whose rows are deleted and which is still to be removed."""

    __tablename__ = "pending_removals"

    path: Mapped[str] = mapped_column(primary_key=True)


class ApiKey(Base):
    """A key by its hash; `prefix` is the key's beginning, for people to tell keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEntry(Base):
    """An entry of the audit log. `key_id` outlives the key; it is None while authentication is off."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "at"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Counter, primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    key_id: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str | None]
    detail: Mapped[JsonObject]


class RememberedAnswer(Base):
    """The first answer to a POST with an Idempotency-Key; `status` is None while the request is still running."""

    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "created_at"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    api_key_id: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[JsonObject | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Worker(Base):
    """The last sign of life of a worker process."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    heartbeat_at: Mapped[datetime]
