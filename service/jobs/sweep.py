"""Putting right what crashes leave behind: lapsed leases and messages that the broker lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import select, update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job
from service.jobs.lifecycle import HELD, WAITING, LeaseLost, interrupt

RESEND_SECONDS = 60.0

Send = Callable[[str, str], None]
"""Puts (job id, kind) on its queue and remembers when; does not raise when the broker is away."""


def sweep(
    database: Database, send: Send, *, max_attempts: int, resend_all: bool = False, has_slept: bool = False
) -> None:
    """Interrupts jobs whose lease lapsed and sends waiting jobs again that no worker has claimed.

    A waiting job is sent again after a minute, then after two, four and so on: a long queue is not flooded with
    copies. `resend_all` sends every waiting job now, for a worker that starts on a broker which may have lost them.
    `has_slept` leaves lapsed leases for the next time: this machine's living jobs slept too, and renew theirs first.
    """
    for job_id, attempt in [] if has_slept else _lapsed(database):
        try:
            interrupt(database, job_id, attempt, "its lease ran out", max_crashes=max_attempts)
        except LeaseLost:
            continue  # It came back to life, or another worker was quicker.
    for job_id, kind in _unclaimed(database, resend_all=resend_all):
        send(job_id, kind)


def mark_sent(database: Database, job_id: str) -> None:
    """Remembers that the job's id was put on its queue just now."""
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(sent_at=utc_now()))


def _lapsed(database: Database) -> list[tuple[str, int]]:
    with database.read() as session:
        rows = session.execute(
            select(Job.id, Job.attempt).where(Job.state.in_(HELD), Job.lease_until < utc_now())
        ).all()
        return [(row.id, row.attempt) for row in rows]


def _unclaimed(database: Database, *, resend_all: bool) -> list[tuple[str, str]]:
    now = utc_now()
    with database.read() as session:
        jobs = session.scalars(select(Job).where(Job.state.in_(WAITING)).order_by(Job.queued_at)).all()
    return [(job.id, job.kind) for job in jobs if resend_all or _is_due(job, now)]


def _is_due(job: Job, now: datetime) -> bool:
    if job.sent_at is None:
        return True
    waited = max(RESEND_SECONDS, (job.sent_at - job.queued_at).total_seconds())
    return now >= job.sent_at + timedelta(seconds=waited)
