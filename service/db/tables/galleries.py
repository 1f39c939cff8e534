"""Galleries, their images and persons, and what is being erased."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from service.clock import utc_now
from service.db.tables.base import Base, JsonObject


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
