"""The answers of the job routes."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, with_config
from typing_extensions import TypedDict

from service.db.tables import Job, JobEvent
from service.jobs.recording import progress_as_json
from service.schemas import Answer, Omittable, Point, ProblemAnswer, SelfLink, Time, example

State = Literal["queued", "running", "cancelling", "cancelled", "succeeded", "failed", "interrupted"]
Kind = Literal[
    "train", "adapt", "evaluate", "calibrate", "index", "cluster", "export", "search_batch", "register", "delete"
]


@with_config(extra="allow")
class Progress(TypedDict, total=False):
    """The progress of a job; each kind counts what it works on: epochs and steps, or images `done` of a `total`."""

    fraction: float
    phase: str
    stage: int
    stages: int
    epoch: int
    epochs: int
    step: int
    steps: int
    done: int
    total: int
    images_per_second: float | None
    eta_seconds: float | None


class JobLinks(SelfLink):
    """Links of a job, and of what it made."""

    events: str
    metrics: str
    curves: str = Field(description="the metrics drawn; `.svg` in place of `.png` is drawn as well")
    logs: str
    deliveries: Omittable[str] = Field(default=None, description="of a job with a webhook")
    model: Omittable[str] = None
    dataset: Omittable[str] = None
    gallery: Omittable[str] = None


class JobAnswer(Answer):
    """A job: its state, progress, latest metrics, and its result or error."""

    model_config = example(
        id="job_01jb2c3d4e5f6g7h8j9k0m1n2p",
        kind="train",
        state="running",
        spec={"method": "bnneck", "dataset": "ds_01jb2c3d4e5f6g7h8j9k0m1n2p", "seed": 0},
        attempt=1,
        progress={"fraction": 0.42, "phase": "train", "epoch": 6, "epochs": 15, "step": 120, "steps": 751},
        metrics={"loss": 0.41},
        result=None,
        error=None,
        created_at="2026-01-31T12:00:00Z",
        started_at="2026-01-31T12:00:01Z",
        finished_at=None,
        links={
            "self": "/jobs/job_01…",
            "events": "/jobs/job_01…/events",
            "metrics": "/jobs/job_01…/metrics",
            "curves": "/jobs/job_01…/curves.png",
            "logs": "/jobs/job_01…/logs",
        },
    )

    id: str
    kind: Kind
    state: State
    spec: dict[str, Any] = Field(description="what it was asked for, every name an id, every setting written out")
    attempt: int
    progress: Progress
    metrics: dict[str, float | None] = Field(description="the newest point of each curve")
    result: dict[str, Any] | None
    error: ProblemAnswer | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    links: JobLinks

    @classmethod
    def of(cls, job: Job, prefix: str = "") -> JobAnswer:
        """The job as clients see it; `prefix` is put before links."""
        here, result = f"{prefix}/jobs/{job.id}", job.result or {}
        parts = {name: f"{here}/{name}" for name in ("events", "metrics", "logs")}
        made = {
            name: f"{prefix}/{path}/{result[name]}"
            for name, path in (("model", "models"), ("dataset", "datasets"), ("gallery", "galleries"))
            if result.get(name)
        }
        if job.webhook_url is not None:
            made["deliveries"] = f"{here}/deliveries"
        return cls(
            id=job.id,
            kind=cast("Kind", job.kind),
            state=cast("State", job.state),
            spec=job.spec,
            attempt=job.attempt,
            progress=cast("Progress", job.progress or progress_as_json(0.0, "waiting")),
            metrics=job.metrics or {},
            result=job.result,
            error=ProblemAnswer.model_validate(job.error) if job.error else None,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            links=JobLinks(self=here, curves=f"{here}/curves.png", **parts, **made),
        )


class EventAnswer(Answer):
    """Something that happened to a job; `id` is also the id of the server-sent event."""

    id: int
    at: Time
    event: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> EventAnswer:
        """The event as clients see it."""
        return cls(id=event.id, at=event.at, event=event.kind, data=event.data)


Curves = dict[str, list[Point]]
"""Curve -> its points (step, value), steps rising."""


class EstimateAnswer(Answer):
    """A rough cost, for choosing a batch and for planning a day."""

    memory_bytes: int
    seconds: float
    operations: float
    pictures: int
    basis: str


class WarningAnswer(Answer):
    """Something that a training may not do as it should, and what to do about it."""

    code: str
    detail: str
    hint: str
    stage: int


class DryRunAnswer(Answer):
    """A job that was checked and not started: its spec in full, what it would cost, and what it would warn of."""

    dry_run: Literal[True]
    kind: Kind
    spec: dict[str, Any]
    estimate: EstimateAnswer
    warnings: list[WarningAnswer]


class NearClass(Answer):
    """A class that is close to another."""

    identity: str
    distance: float


class GraphClass(Answer):
    """A class of a graph, with its nearest classes, closest first."""

    identity: str
    nearest: list[NearClass]


class GraphAnswer(Answer):
    """The nearest classes of every class at the start of an epoch, and the epochs that have such a graph."""

    epoch: int
    epochs: list[int]
    classes: list[GraphClass]


class JobCluster(Answer):
    """A cluster of an epoch of an adaptation; `trained_on` where it was taken for an identity."""

    confidence: float
    trained_on: bool
    cameras: list[str]
    images: list[str] = Field(description="ids, of the data set or of the gallery")


class JobClustersAnswer(Answer):
    """The clusters that an epoch of an adaptation began with, and the epochs that have some."""

    epoch: int
    epochs: list[int]
    images: int = Field(description="in all")
    left_alone: int = Field(description="in no cluster")
    clusters: list[JobCluster] = Field(description="a page of them")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")
