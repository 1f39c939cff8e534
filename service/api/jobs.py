"""Jobs over the API: start, watch, cancel, resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from reid_core.errors import Fault
from service.api.dependencies import DatabaseDep, PageDep, SettingsDep, accepted, as_response, prefix_of, require
from service.api.openapi import problems
from service.api.pagination import filter_equal, list_page
from service.auth import Caller, demand
from service.db import audit
from service.db.session import Database
from service.db.tables import Job, WebhookDelivery
from service.errors import Problem
from service.jobs import enqueue, lifecycle
from service.jobs.body_schemas import JobBody
from service.jobs.receivers import check_url
from service.jobs.recording import read_curves
from service.jobs.schemas import Curves, DryRunAnswer, EventAnswer, JobAnswer, Kind, State
from service.jobs.webhook_schemas import DeliveryAnswer
from service.schemas import Listing
from service.storage import ensure_free_space

router = APIRouter(prefix="/jobs", tags=["jobs"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]

_STREAM = {"text/event-stream": {"schema": {"type": "object", "properties": {"event": {"type": "string"}}}}}
_POLL_SECONDS = 0.5
_HEARTBEAT_SECONDS = 10.0


@router.post(
    "",
    status_code=202,
    responses={
        200: {"description": "With dry_run: the spec and an estimate.", "model": DryRunAnswer},
        **problems(404),
    },
    response_model=JobAnswer,
)
def create_job(
    body: JobBody,
    request: Request,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: Writer,
    dry_run: Annotated[bool, Query(description="Check and estimate, start nothing.")] = False,
) -> JobAnswer | Response:
    """Start a job, or with `dry_run` see what it would be: every setting, memory and time."""
    from service.jobs.estimate import estimate  # all of them build networks, for which PyTorch is needed
    from service.jobs.planning import resolve, warn
    from service.jobs.starts import check_start

    if body.kind == "search_batch":
        demand(caller, "search")
    with database.read() as session:
        resolved = resolve(session, settings, body)
    if body.webhook is not None:
        check_url(settings, body.webhook.url)
    check_start(settings, resolved)  # may ask another host, which no transaction should wait for
    if dry_run:
        with database.read() as session:
            answer = DryRunAnswer(
                dry_run=True,
                kind=resolved.kind,
                spec=resolved.spec,
                estimate=estimate(session, settings, resolved),
                warnings=warn(session, resolved),
            )
        return as_response(answer)
    ensure_free_space(settings.home, needed_bytes=0, min_free_bytes=settings.min_free_bytes)
    with database.write() as session:
        # Checked again under the write lock: of two requests for one model name, one gets it.
        resolved = resolve(session, settings, body)
        webhook = body.webhook.values if body.webhook else (None, None)
        job = enqueue(session, resolved.kind, resolved.spec, datasets=resolved.datasets, webhook=webhook)
        searched = {"gallery": job.spec["gallery"]} if body.kind == "search_batch" else {}
        audit.record(session, key_id=caller.key_id, action="job.create", target=job.id, kind=job.kind, **searched)
    return _accepted(request, response, job)


@router.get("")
def list_jobs(
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    state: State | None = None,
    kind: Kind | None = None,
) -> Listing[JobAnswer]:
    """Jobs, newest first."""
    query, prefix = filter_equal(select(Job), (Job.state, state), (Job.kind, kind)), prefix_of(request)
    with database.read() as session:
        return list_page(
            session, query, Job.id, page, answer_of=lambda job: JobAnswer.of(job, prefix), newest_first=True
        )


@router.get("/{job_id}")
def read_job(job_id: str, request: Request, database: DatabaseDep, _caller: Reader) -> JobAnswer:
    """One job: its state, progress, latest metrics, result or error."""
    with database.read() as session:
        return JobAnswer.of(lifecycle.find_job(session, job_id), prefix_of(request))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, request: Request, response: Response, database: DatabaseDep, caller: Writer) -> JobAnswer:
    """End a job. It is `cancelled` once no process of it is left."""
    return _change(request, response, database, caller, job_id, "cancel", lifecycle.request_cancel)


@router.post("/{job_id}/resume", status_code=202)
def resume_job(job_id: str, request: Request, response: Response, database: DatabaseDep, caller: Writer) -> JobAnswer:
    """Go on with a cancelled, failed or interrupted job from its last checkpoint, under the same id."""
    return _change(request, response, database, caller, job_id, "resume", lifecycle.resume)


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: str, request: Request, response: Response, database: DatabaseDep, caller: Writer) -> JobAnswer:
    """Start over: a new job with the spec of one that is over."""
    return _change(request, response, database, caller, job_id, "retry", lifecycle.retry)


@router.get("/{job_id}/metrics")
def read_metrics(job_id: str, database: DatabaseDep, _caller: Reader) -> Curves:
    """The job's curves: `{name: [[step, value], ...]}`."""
    with database.read() as session:
        lifecycle.find_job(session, job_id)
        return read_curves(session, job_id)


@router.get("/{job_id}/logs", response_class=PlainTextResponse)
def read_logs(job_id: str, database: DatabaseDep, settings: SettingsDep, _caller: Reader) -> Response:
    """Read the log of the job's processes, all attempts."""
    with database.read() as session:
        lifecycle.find_job(session, job_id)
    log = settings.jobs_dir / job_id / "log.txt"
    # Read at once: a log grows while it is sent, and more bytes than were announced break the answer off.
    return PlainTextResponse(log.read_bytes() if log.is_file() else b"")


@router.get("/{job_id}/deliveries")
def list_deliveries(job_id: str, database: DatabaseDep, page: PageDep, _caller: Reader) -> Listing[DeliveryAnswer]:
    """The deliveries of the job's ends to its webhook, oldest first: more than one where it was resumed."""
    with database.read() as session:
        lifecycle.find_job(session, job_id)
        query = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
        return list_page(session, query, WebhookDelivery.id, page, answer_of=DeliveryAnswer.of)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"model": Listing[EventAnswer], "content": _STREAM},
        **problems(400),
    },
)
async def follow_events(
    job_id: str,
    request: Request,
    database: DatabaseDep,
    _caller: Reader,
    last_event_id: Annotated[str | None, Header()] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> Response:
    """Follow the job's events until its end, as server-sent events; a JSON list for `Accept: application/json`."""
    after = _event_id(last_event_id)
    await run_in_threadpool(_events_after, database, job_id, after)
    if "application/json" in accept:
        events, _ = await run_in_threadpool(_events_after, database, job_id, after)
        return as_response(Listing(items=events, next_cursor=None))
    return StreamingResponse(
        _stream(request, database, job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(request: Request, database: Database, job_id: str, after: int) -> AsyncIterator[bytes]:
    silent, stops = 0.0, getattr(request.state, "server_stops", asyncio.Event())  # without our server never set
    while not stops.is_set() and not await request.is_disconnected():
        events, over = await run_in_threadpool(_events_after, database, job_id, after)
        for event in events:
            after, silent = event.id, 0.0
            yield format_sse_event(data_str=event.model_dump_json(), event=event.event, id=str(event.id))
        if over and not events:
            yield format_sse_event(data_str="{}", event="end")
            return
        if silent >= _HEARTBEAT_SECONDS:
            silent = 0.0
            yield KEEPALIVE_COMMENT
        await asyncio.sleep(_POLL_SECONDS)
        silent += _POLL_SECONDS


def _events_after(database: Database, job_id: str, after: int) -> tuple[list[EventAnswer], bool]:
    with database.read() as session:
        job = lifecycle.find_job(session, job_id)
        events = [EventAnswer.of(event) for event in lifecycle.read_events(session, job_id, after=after)]
        return events, job.state in lifecycle.FINISHED


def _event_id(text: str | None) -> int:
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 18:
        fault = Fault("/header/Last-Event-ID", "not-an-id", f"{text!r} is not the id of an event")
        raise Problem("malformed-request", f"{text!r} is not the id of an event.", errors=[fault])
    return int(text)


def _change(
    request: Request,
    response: Response,
    database: Database,
    caller: Caller,
    job_id: str,
    action: str,
    change: Callable[[Session, str], Job],
) -> JobAnswer:
    with database.write() as session:
        job = change(session, job_id)
        audit.record(session, key_id=caller.key_id, action=f"job.{action}", target=job.id)
    return _accepted(request, response, job)


def _accepted(request: Request, response: Response, job: Job) -> JobAnswer:
    """Answers 202, after the commit; a job that waits is sent to its queue."""
    if job.state == "queued":
        request.app.state.send(job.id, job.kind)
    answer = JobAnswer.of(job, prefix_of(request))
    return accepted(response, answer, answer.links.self)
