"""Jobs with what they read, report and send; workers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from service.clock import utc_now
from service.db.tables.base import Base, JsonObject
from service.db.types import Counter


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


class Worker(Base):
    """The last sign of life of a worker process."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    heartbeat_at: Mapped[datetime]
