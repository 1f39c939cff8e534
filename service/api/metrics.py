"""`GET /metrics`: figures for Prometheus. Not in the OpenAPI schema, since it is no JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from service.api.authentication import is_local
from service.auth import demand
from service.db.session import Database
from service.db.tables import Job

router = APIRouter(include_in_schema=False)

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable for the folder in which it adds up what several processes count."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PrometheusMetrics:
    """The figures of the API: the requests that it answered, and the jobs in the database."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("reid_http_requests", "Requests answered.", labels, registry=self._registry)
        self.seconds = Histogram(
            "reid_http_request_seconds",
            "Time until the answer was complete.",
            labels[:2],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._jobs = JobCounts(database)

    def text(self) -> bytes:
        """All figures in Prometheus' text format; of every process where several share the requests."""
        registry = self._registry
        if _SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        jobs = CollectorRegistry()
        jobs.register(self._jobs)
        return generate_latest(registry) + generate_latest(jobs)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request by its route's template, so that no id becomes a label; `status` 0: it got no answer."""
        self.requests.labels(method, route, status).inc()
        self.seconds.labels(method, route).observe(seconds)


class JobCounts(Collector):
    """Jobs by kind and state, counted when somebody asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("reid_jobs", "Jobs by kind and state.", labels=("kind", "state"))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauge = GaugeMetricFamily("reid_jobs", "Jobs by kind and state.", labels=("kind", "state"))
        with self._database.read() as session:
            counts = session.execute(select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)).all()
        for kind, state, count in counts:
            gauge.add_metric((kind, state), count)
        yield gauge


@router.get("/metrics")
def read_metrics(request: Request) -> Response:
    """The figures in Prometheus' text format, for this machine and for keys that may read."""
    if not is_local(request.scope):
        demand(request.state.caller, "read")
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
