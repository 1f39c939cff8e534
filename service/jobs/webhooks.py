"""Webhooks of jobs: each end of a job is a row in the same transaction, which workers deliver.

One that is lost on the way is sent again under the same id, by whichever worker looks next; a receiver that has seen
the id may let it be.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Job, WebhookDelivery
from service.jobs.receivers import receiver_of
from service.jobs.webhook_schemas import EndEvent
from service.settings import Settings

_GONE = 410
"""The answer of a receiver that wants no more of it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way: the body, its receiver and the secret that signs it; `attempt` counts from 1."""

    id: str
    receiver: str
    url: str
    secret: str
    body: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of an attempt: the answer's status, None where none came; `fault` is None where it was delivered."""

    status: int | None
    fault: str | None


def note_end(session: Session, job: Job) -> None:
    """Adds the delivery of the job's end, where the job has a webhook; in the transaction that ends it."""
    if job.webhook_url is None:
        return
    event = EndEvent.of(job)
    session.add(
        WebhookDelivery(
            id=new_id("evt"),
            job_id=job.id,
            receiver=receiver_of(job.webhook_url),
            event=event.type,
            body=event.model_dump_json(),
        )
    )


def claim_due(database: Database, settings: Settings, *, busy: Collection[str], most: int) -> list[Delivery]:
    """Takes the oldest due delivery of each of at most `most` receivers that are not `busy`.

    Each is due again some time after the longest that an attempt takes, should this process not live to record it.
    """
    oldest = (
        select(func.min(WebhookDelivery.id))
        .where(WebhookDelivery.due_at <= utc_now(), WebhookDelivery.receiver.not_in(busy))
        .group_by(WebhookDelivery.receiver)
        .limit(most)
    )
    with database.read() as session:
        due = session.scalars(oldest).all()
    claimed = [_claim(database, settings, delivery_id) for delivery_id in due]
    return [delivery for delivery in claimed if delivery is not None]


def record(database: Database, settings: Settings, delivery: Delivery, attempt: Attempt) -> None:
    """Writes down the outcome: delivered, due again later, or given up."""
    now = utc_now()
    over = attempt.fault is None or attempt.status == _GONE or delivery.attempt >= settings.webhook_attempts
    pause = timedelta(seconds=retry_seconds(settings, delivery.attempt))
    with database.write() as session:
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery.id, WebhookDelivery.attempts == delivery.attempt)
            .values(
                state="delivered" if attempt.fault is None else "failed" if over else "waiting",
                due_at=None if over else now + pause,
                finished_at=now if over else None,
                status=attempt.status,
                fault=attempt.fault,
            )
        )


def retry_seconds(settings: Settings, attempt: int) -> float:
    """The pause after that failed attempt: doubled each time, half as long to half as long again by chance, so that
    the deliveries which a receiver's fall has gathered do not come back all at once."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311  nobody gains by guessing it
    return float(settings.webhook_retry_seconds * 2 ** (attempt - 1) * jitter)


def _claim(database: Database, settings: Settings, delivery_id: str) -> Delivery | None:
    """The delivery, one attempt more; None where another worker was quicker."""
    now = utc_now()
    lease = timedelta(seconds=2 * settings.webhook_seconds + settings.lease_seconds)
    with database.write() as session:
        attempt = session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, WebhookDelivery.due_at <= now)
            .values(attempts=WebhookDelivery.attempts + 1, due_at=now + lease)
            .returning(WebhookDelivery.attempts)
        ).scalar()
        if attempt is None:
            return None
        row = session.get_one(WebhookDelivery, delivery_id)
        job = session.get_one(Job, row.job_id)
        return Delivery(row.id, row.receiver, job.webhook_url or "", job.webhook_secret or "", row.body, attempt)
