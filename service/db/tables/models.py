"""Models and their evaluations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from service.clock import utc_now
from service.db.tables.base import Base, JsonObject


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
