"""Health checks: a sign of life, and whether the service can take work, each part that it needs by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request
from sqlalchemy import select

from service.api.authentication import is_local
from service.api.error_handlers import ProblemResponse
from service.api.schemas import CheckAnswer, LivenessAnswer, ReadinessAnswer
from service.auth import Caller
from service.clock import utc_now
from service.db.schema import current_version, latest_version
from service.db.session import Database
from service.db.tables import Worker
from service.errors import Problem
from service.settings import Settings

if TYPE_CHECKING:
    from service.search.engine import Engine

router = APIRouter(prefix="/healthz", tags=["service"])

_RETRY_SECONDS = "5"


@router.get("/live")
async def read_liveness() -> LivenessAnswer:
    """200 as long as the process answers."""
    return LivenessAnswer(status="ok")


@router.get("/ready", response_model=ReadinessAnswer)
def read_readiness(request: Request) -> ReadinessAnswer | ProblemResponse:
    """200 when work can be taken, else 503. `checks` tells this machine, and keys that may read, how each part is."""
    checks = {name: _run(check) for name, check in _checks(request.app).items()}
    failed = [name for name, check in checks.items() if not check.ok]
    caller: Caller | None = request.state.caller
    visible = checks if is_local(request.scope) or (caller and caller.may("read")) else None
    if not failed:
        return ReadinessAnswer(status="ok", checks=visible)
    hint = "`checks` says why, part by part." if visible else "Ask with a key that may read, or on the machine itself."
    detail = f"Not ready: {', '.join(failed)}." if visible else "Not ready."
    problem = Problem("unavailable", detail, hint=hint, headers={"Retry-After": _RETRY_SECONDS})
    content = problem.as_json(instance=request.url.path, request_id=request.state.request_id)
    if visible:
        content["checks"] = {name: check.model_dump() for name, check in visible.items()}
    return ProblemResponse(content, problem.status, problem.headers)


def _checks(app: FastAPI) -> dict[str, Callable[[], str]]:
    database, settings = app.state.database, app.state.settings
    return {
        "database": lambda: _check_database(database),
        "broker": lambda: _check_broker(app.state.ping_broker),
        "worker": lambda: _check_worker(database, settings),
        "disk": lambda: _check_disk(settings),
        "engine": lambda: _check_engine(app.state.engine, app.state.networks),
    }


def _run(check: Callable[[], str]) -> CheckAnswer:
    try:
        return CheckAnswer(ok=True, detail=check())
    except Exception as error:  # noqa: BLE001  whatever a part fails with is what the answer reports
        return CheckAnswer(
            ok=False, detail=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )


def _check_database(database: Database) -> str:
    with database.engine.connect() as connection:
        found, needed = current_version(connection), latest_version()
    if found != needed:
        raise RuntimeError(f"the schema is at version {found}, this software needs {needed}; run `reid migrate`")
    return f"{database.dialect}, schema {found}"


def _check_broker(ping: Callable[[], None]) -> str:
    ping()
    return "answers"


def _check_worker(database: Database, settings: Settings) -> str:
    alive_since = utc_now() - timedelta(seconds=settings.lease_seconds)
    with database.read() as session:
        names = session.scalars(select(Worker.name).where(Worker.heartbeat_at > alive_since)).all()
    if not names:
        raise RuntimeError(f"no worker has given a sign of life for {settings.lease_seconds:g} s; start one")
    return f"{len(names)} alive"


def _check_engine(engine: Future[Engine], networks: Future[None]) -> str:
    if not engine.done():
        raise RuntimeError("PyTorch is being loaded; what needs no network is answered already")
    engine.result()
    if not networks.done():
        return "PyTorch is loaded; torchvision is being loaded, the first search waits for it"
    networks.result()
    return "loaded"


def _check_disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home).free
    if free < settings.min_free_bytes:
        raise RuntimeError(f"{free:,} bytes are free, REID_MIN_FREE_BYTES asks for {settings.min_free_bytes:,}")
    return f"{free:,} bytes free"
