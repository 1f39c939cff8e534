"""A job's way through its states; every change is one conditional UPDATE, so that only one of two rivals makes it.

    queued ──claim──> running ──> succeeded | failed
      ^                 │  └──cancel──> cancelling ──> cancelled
      └──resume── interrupted (its process was lost; goes on by itself, at most `max_attempts` times)

`attempt` is the fence: whoever runs attempt n may write only while the row still says n.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Job, JobDataset, JobEvent
from service.errors import Problem, not_found
from service.jobs.kinds import KINDS, kinds_of
from service.jobs.webhooks import note_end
from service.models.lifecycle import check_name_is_free

WAITING = ("queued", "interrupted")
HELD = ("running", "cancelling")
UNFINISHED = (*WAITING, *HELD)
FINISHED = ("succeeded", "failed", "cancelled")
STATES = (*UNFINISHED, *FINISHED)


class LeaseLost(Exception):
    """The job belongs to another attempt by now, or is over; this process must end."""


def enqueue(
    session: Session,
    kind: str,
    spec: dict[str, Any],
    *,
    datasets: Sequence[str] = (),
    webhook: tuple[str | None, str | None] = (None, None),
    job_id: str | None = None,
) -> Job:
    """Adds a queued job that reads the given data sets; the gallery or data set that it makes shows it as its own.

    `webhook` is the url that is sent its end, and the secret that signs this; `job_id` is its id, where something lies
    under that already. Send it to the queue after the commit, not before.
    """
    url, secret = webhook
    job = Job(id=job_id or new_id("job"), kind=kind, state="queued", spec=spec, webhook_url=url, webhook_secret=secret)
    session.add(job)
    session.flush()
    session.add_all(JobDataset(job_id=job.id, dataset_id=dataset) for dataset in dict.fromkeys(datasets))
    if subject := KINDS[kind].subject(session, spec):
        subject.job_id = job.id
    add_event(session, job.id, "queued", {})
    return job


def find_job(session: Session, job_id: str) -> Job:
    """The job; raises the 404 problem."""
    job = session.get(Job, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def add_event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> None:
    """Records that something happened to the job, now."""
    session.add(JobEvent(job_id=job_id, kind=kind, data=data))


def read_events(session: Session, job_id: str, *, after: int = 0, limit: int = 1000) -> list[JobEvent]:
    """The job's events with an id above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id).limit(limit)
    return list(session.scalars(query))


def claim(database: Database, job_id: str, worker: str, lease_seconds: float) -> int | None:
    """Takes a waiting job for this worker: its new attempt number, or None when it is not to be had."""
    with database.write() as session:
        taken = session.execute(
            update(Job)
            .where(Job.id == job_id, Job.state.in_(WAITING))
            .values(
                state="running",
                attempt=Job.attempt + 1,
                worker=worker,
                lease_until=utc_now() + timedelta(seconds=lease_seconds),
            )
            .returning(Job.attempt)
        ).scalar()
        if taken is None:
            return None
        session.execute(update(Job).where(Job.id == job_id, Job.started_at.is_(None)).values(started_at=utc_now()))
        add_event(session, job_id, "started", {"attempt": taken, "worker": worker})
        return int(taken)


def oldest_waiting(database: Database, queue: str) -> str | None:
    """The id of the job of that queue that has waited longest; None where none waits."""
    with database.read() as session:
        waiting = select(Job.id).where(Job.state.in_(WAITING), Job.kind.in_(kinds_of(queue)))
        return session.scalar(waiting.order_by(Job.queued_at, Job.id).limit(1))


def renew(session: Session, job_id: str, attempt: int, lease_seconds: float, **values: Any) -> str:
    """Prolongs the lease and writes the given columns; returns the job's state, `running` or `cancelling`.

    Raises:
        LeaseLost: the attempt is over.
    """
    state = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(HELD))
        .values(lease_until=utc_now() + timedelta(seconds=lease_seconds), **values)
        .returning(Job.state)
    ).scalar()
    if state is None:
        raise LeaseLost(f"job {job_id} is no longer attempt {attempt}'s")
    return str(state)


def held_state(database: Database, job_id: str, attempt: int) -> str | None:
    """The state while this attempt holds the job, else None."""
    with database.read() as session:
        return session.scalar(select(Job.state).where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(HELD)))


def succeed(session: Session, job_id: str, attempt: int, result: dict[str, Any]) -> None:
    """Ends the attempt well; raises `LeaseLost` when it is not the job's any more."""
    _end(session, job_id, attempt, "succeeded", {"result": result}, result=result, error=None)


def fail(database: Database, job_id: str, attempt: int, problem: Problem) -> None:
    """Ends the attempt with the problem that a person can act on; raises `LeaseLost`."""
    error = problem.as_json(instance=f"/jobs/{job_id}")
    with database.write() as session:
        _end(session, job_id, attempt, "failed", {"error": error}, error=error)


def settle_cancelled(database: Database, job_id: str, attempt: int) -> None:
    """Ends a cancelling job whose process is gone; raises `LeaseLost`."""
    with database.write() as session:
        _end(session, job_id, attempt, "cancelled", {})


def interrupt(database: Database, job_id: str, attempt: int, reason: str, *, max_crashes: int | None) -> str:
    """Gives up an attempt whose process is gone: the new state, `interrupted`, `failed` or `cancelled`.

    `max_crashes` None means that nobody is to blame (the worker shuts down); otherwise the job fails when it has
    crashed that often. Raises `LeaseLost`.
    """
    with database.write() as session:
        job = session.scalars(
            select(Job).where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(HELD)).with_for_update()
        ).one_or_none()
        if job is None:
            raise LeaseLost(f"job {job_id} is no longer attempt {attempt}'s")
        if job.state == "cancelling":
            _end(session, job_id, attempt, "cancelled", {})
            return "cancelled"
        if max_crashes is not None:
            job.crashes += 1
            if job.crashes >= max_crashes:
                error = _crashed_too_often(job, reason).as_json(instance=f"/jobs/{job_id}")
                _end(session, job_id, attempt, "failed", {"error": error}, error=error)
                return "failed"
        job.state, job.lease_until, job.sent_at = "interrupted", None, None
        add_event(session, job_id, "interrupted", {"attempt": attempt, "reason": reason})
        return "interrupted"


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancels a waiting job at once; asks for a running one's end. Raises 404, or 409 when it is over."""
    job = _locked(session, job_id)
    if job.state in WAITING:
        job.state, job.finished_at = "cancelled", utc_now()
        add_event(session, job_id, "cancelled", {})
        note_end(session, job)
    elif job.state == "running":
        job.state = "cancelling"
        add_event(session, job_id, "cancelling", {})
    elif job.state != "cancelling":
        raise _wrong_state(job, "cancelled", UNFINISHED)
    return job


def resume(session: Session, job_id: str) -> Job:
    """Queues a job again that was cancelled, failed or interrupted; it goes on from its last checkpoint.

    Raises 404, or 409 in another state or where its model's name belongs to another by now.
    """
    job = _locked(session, job_id)
    allowed = ("cancelled", "failed", "interrupted")
    if job.state not in allowed:
        raise _wrong_state(job, "resumed", allowed)
    if job.state in FINISHED:  # an interrupted one has kept its model's name
        check_name_is_free(session, job.spec.get("model_name"))
    job.state, job.error, job.finished_at, job.crashes = "queued", None, None, 0
    job.queued_at, job.sent_at = utc_now(), None
    add_event(session, job_id, "resumed", {})
    return job


def retry(session: Session, job_id: str) -> Job:
    """A new job with the spec of one that is over; raises 404, or 409 as `resume` does."""
    job = _locked(session, job_id)
    if job.state not in FINISHED:
        raise _wrong_state(job, "retried", FINISHED)
    check_name_is_free(session, job.spec.get("model_name"))
    datasets = session.scalars(select(JobDataset.dataset_id).where(JobDataset.job_id == job_id)).all()
    webhook = (job.webhook_url, job.webhook_secret)
    return enqueue(session, job.kind, job.spec, datasets=datasets, webhook=webhook)


def _locked(session: Session, job_id: str) -> Job:
    find_job(session, job_id)
    return session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()


def _end(session: Session, job_id: str, attempt: int, state: str, event: dict[str, Any], **values: Any) -> None:
    # A cancel that comes after the work is done is too late: the work counts.
    from_states = ("cancelling",) if state == "cancelled" else HELD
    ended = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.state.in_(from_states))
        .values(state=state, finished_at=utc_now(), lease_until=None, **values)
        .returning(Job.id)
    ).scalar()
    if ended is None:
        raise LeaseLost(f"job {job_id} is no longer attempt {attempt}'s")
    add_event(session, job_id, state, event)
    note_end(session, session.get_one(Job, job_id, populate_existing=True))


def _wrong_state(job: Job, verb: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        "wrong-state",
        f"Job {job.id} is {job.state}; it can be {verb} only while {' or '.join(allowed)}.",
        hint=f"GET /jobs/{job.id} shows its state.",
    )


def _crashed_too_often(job: Job, reason: str) -> Problem:
    return Problem(
        "job-crashed",
        f"The job's process was lost {job.crashes} times, lastly: {reason}.",
        hint=f"GET /jobs/{job.id}/logs shows its last words; POST /jobs/{job.id}/resume tries again, REID_MAX_ATTEMPTS "
        "times at most.",
    )
