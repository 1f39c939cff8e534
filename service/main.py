"""The API as an ASGI app: `uvicorn --factory service.main:create_app`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from service.api import (
    audit,
    batch_jobs,
    batch_search,
    charts,
    clusters,
    datasets,
    embeddings,
    entrance,
    evaluations,
    failures,
    feedback,
    galleries,
    gallery_images,
    graphs,
    health,
    identities,
    jobs,
    methods,
    metrics,
    models,
    problems,
    search,
    verification,
)
from service.api import keys as keys_routes
from service.api import version as version_routes
from service.api.admission import Admission
from service.api.authentication import Authentication
from service.api.body_limit import BodyLimit
from service.api.dependencies import refuse_unknown_query
from service.api.error_handlers import install_error_handlers
from service.api.idempotency import Idempotency
from service.api.metrics import PrometheusMetrics
from service.api.openapi import COMMON_PROBLEMS, complete_openapi, operation_id
from service.api.operations import operations_of
from service.api.permission import Permission
from service.api.rates import Rates
from service.api.request_context import RequestContext
from service.budget import Budget
from service.datasets.catalog import bring_up_to_date
from service.db.session import Database, open_database
from service.decoding import Decoder
from service.deletion import remove_pending
from service.galleries.removal import finish_erasures
from service.jobs.dispatch import dispatch
from service.keys import lifecycle as keys
from service.logs import configure_logging
from service.memory import give_back_large_blocks
from service.queue.tasks import make_celery, ping
from service.search.journal import SearchJournal, keeping_journal, recover
from service.settings import Settings, get_settings

if TYPE_CHECKING:
    from service.search.engine import Engine

log = logging.getLogger(__name__)

_KEY_USES_SECONDS = 5.0

ROUTERS: tuple[APIRouter, ...] = (
    search.router,
    batch_search.router,
    batch_jobs.router,
    datasets.router,
    jobs.router,
    methods.router,
    models.router,
    galleries.router,
    gallery_images.router,
    identities.router,
    clusters.router,
    embeddings.router,
    verification.router,
    feedback.router,
    graphs.router,
    charts.router,  # before evaluations: /evaluations/matrix.png is no evaluation's id
    evaluations.router,
    failures.router,
    keys_routes.router,
    audit.router,
    problems.router,
    health.router,
    version_routes.router,
    entrance.router,
    metrics.router,
)
"""Served at the root and once more under /v1; the schema shows them once. They are tried in this order for each
request, so the busiest comes first."""

MIDDLEWARE = (RequestContext, Authentication, Permission, BodyLimit, Idempotency)
"""From the outside in: each relies on those before it."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app; without `settings`, as a process of its own, it reads them and sets up logging and memory."""
    if settings is None:
        settings = get_settings()
        configure_logging(settings.log_level)
        give_back_large_blocks()
    app = FastAPI(
        title="Re-ID Search",
        summary="Train published person re-identification methods, search by image, see why it matched.",
        version=version("reid-search"),
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
        docs_url=None,  # FastAPI's would load its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the body and, in some clients, the key
    )
    app.state.settings = settings
    for middleware in reversed(MIDDLEWARE):  # the one added last is the outermost
        app.add_middleware(middleware)
    for router in ROUTERS:
        for prefix in ("", "/v1"):
            app.include_router(
                router,
                prefix=prefix,
                include_in_schema=not prefix,
                dependencies=[Depends(refuse_unknown_query)],
                responses=COMMON_PROBLEMS,
            )
    app.include_router(entrance.page)
    if settings.cors_origins:
        _open_to_pages(app, settings)
    install_error_handlers(app)
    complete_openapi(app)
    return app


def _open_to_pages(app: FastAPI, settings: Settings) -> None:
    """Lets pages of those origins call us; they send a key as others do, browsers add none by themselves."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "X-API-Key",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "X-Request-ID",
        ],
        expose_headers=["Location", "Retry-After", "X-Request-ID", "Idempotent-Replayed", "ETag", "Content-Range"],
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    app.state.database = database = open_database(settings.database_url)
    app.state.operations = operations_of(app)
    app.state.metrics = PrometheusMetrics(database)
    app.state.key_uses = keys.KeyUses()
    app.state.decoder = Decoder(settings)
    _admit_crowds(app, settings)
    with ThreadPoolExecutor(1, "loading") as loading, keeping_journal(database, settings) as journal:
        app.state.journal = journal
        app.state.engine = engine = loading.submit(_load_engine, database, settings, app.state.decoder, journal)
        app.state.networks = loading.submit(_load_networks)
        _connect_broker(app, settings)
        try:
            if settings.migrate_at_start:
                await run_in_threadpool(bring_up_to_date, database, settings)
            await run_in_threadpool(keys.ensure_admin_key, database, settings)
            await run_in_threadpool(remove_pending, database, settings)
            await run_in_threadpool(finish_erasures, database, settings)
            await run_in_threadpool(recover, database, settings)
            async with _writing_key_uses(app.state.key_uses, database):
                yield
        finally:
            await run_in_threadpool(lambda: engine.result().close())
    database.close()


@asynccontextmanager
async def _writing_key_uses(uses: keys.KeyUses, database: Database) -> AsyncIterator[None]:
    """Writes them every few seconds, and once more at the end."""

    async def write_again_and_again() -> None:
        while True:
            await asyncio.sleep(_KEY_USES_SECONDS)
            try:
                await run_in_threadpool(uses.write, database)
            except OperationalError as error:
                log.warning("the last uses of keys cannot be written: %s", error)

    writing = asyncio.create_task(write_again_and_again())
    try:
        yield
    finally:
        writing.cancel()
        await run_in_threadpool(uses.write, database)


def _load_engine(database: Database, settings: Settings, decoder: Decoder, journal: SearchJournal) -> Engine:
    """The search engine, and PyTorch with it: seconds in which all that needs neither is answered already."""
    try:
        from service.search.engine import Engine

        return Engine(database, settings, decoder, journal)
    except Exception:
        log.exception("PyTorch cannot be loaded")
        raise


def _load_networks() -> None:
    """Imports what builds networks, so that neither the first search nor the first POST /jobs waits for torchvision."""
    from service.jobs import estimate  # noqa: F401


def _admit_crowds(app: FastAPI, settings: Settings) -> None:
    """Sets up the limits that all requests share, so that a crowd of them is refused and not served badly."""
    waiting, seconds = settings.max_waiting, settings.max_wait_seconds
    app.state.rates = Rates(settings)
    app.state.body_memory = Budget(settings.body_memory_bytes)
    app.state.searches = Admission("searches", settings.searches_at_once, waiting=waiting, seconds=seconds)
    app.state.uploads = Admission("uploads", settings.uploads_at_once, waiting=waiting, seconds=seconds)


def _connect_broker(app: FastAPI, settings: Settings) -> None:
    if settings.broker_url is None:
        # Jobs are accepted and wait for a worker's sweep; readiness says what is missing.
        app.state.ping_broker, app.state.send = _no_broker, lambda job_id, kind: None
        return
    celery = make_celery(settings.broker_url)
    app.state.ping_broker = partial(ping, celery)
    app.state.send = partial(dispatch, celery, app.state.database)


def _no_broker() -> None:
    raise RuntimeError("no broker is configured; set REID_BROKER_URL or start with `reid up`")
