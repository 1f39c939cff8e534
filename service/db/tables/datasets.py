"""Data sets and their images."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.clock import utc_now
from service.db.tables.base import Base, JsonObject


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
