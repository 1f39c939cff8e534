"""The bodies and answers of the job routes: one body for every kind of job."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, StringConstraints, with_config
from typing_extensions import TypedDict

from service.db.tables import Job, JobEvent
from service.jobs.recording import progress_as_json
from service.jobs.search_batch_schemas import SearchBatchBody
from service.jobs.webhook_schemas import Notified
from service.schemas import Answer, Body, Name, Omittable, Point, ProblemAnswer, Reference, SelfLink, Time, example

State = Literal["queued", "running", "cancelling", "cancelled", "succeeded", "failed", "interrupted"]
Kind = Literal[
    "train", "adapt", "evaluate", "calibrate", "index", "cluster", "export", "search_batch", "register", "delete"
]


class DatasetPart(Body):
    """A data set with the part of it that is trained on."""

    id: Reference
    split: Literal["train", "all"] = Field(
        default="train", description="all: every image of every split, each file once, without distractors"
    )


Joined = Reference | DatasetPart | Annotated[list[Reference | DatasetPart], Field(min_length=1, max_length=50)]
"""A data set, or several to be joined."""

Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class WeightsFile(Body):
    """A safetensors file in REID_WEIGHTS_DIR, by its plain file name."""

    weights: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00]+$")]
    allow_missing: list[Annotated[str, StringConstraints(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=100, description="beginnings of names in the backbone that may start at random"
    )


class StageBody(Body):
    """One stage of a chain: a training that starts from the network of the stage before."""

    dataset: Joined
    settings: dict[str, Any] = Field(
        default_factory=dict, description="what differs from the job's `settings` in this stage alone"
    )


class TrainBody(Notified):
    """Train a network, on `dataset` or stage by stage on a `chain` of them. Several data sets in one place are joined,
    identities and cameras kept apart."""

    kind: Literal["train"]
    method: str
    dataset: Joined | None = None
    chain: Annotated[list[StageBody], Field(min_length=1, max_length=10)] | None = Field(
        default=None, description="instead of `dataset`; only the last stage's network becomes a model"
    )
    model_name: Name | None = Field(default=None, description="unique; made from the method when left out")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="only what differs from the method's recipe; `preset` names another recipe for short runs",
    )
    init_from: WeightsFile | Reference | None = Field(
        default="imagenet",
        description='"imagenet" (version 1), "imagenet-v2", a model, {"weights": file name}, or null: random weights',
    )
    teacher: Reference | None = Field(default=None, description="for method std: the model to learn from")
    device: Device | None = Field(default=None, description="null: REID_DEVICE of the worker")
    seed: int = Field(default=0, ge=0, lt=2**32)


class ClusteringSettings(Body):
    """The settings of clustering."""

    threshold: float = Field(
        default=0.4, gt=0.05, lt=0.95, description="Jaccard distance up to which two images are connected"
    )
    least: int = Field(default=2, ge=2, le=1000, description="images around which a cluster grows, at least")


class ReliabilitySettings(Body):
    """The clusters that are taken for identities."""

    confidence: float = Field(
        default=0.5, ge=0, le=1, description="the least; 1: a looser and a stricter threshold give the same cluster"
    )
    cross_camera: bool = Field(default=True, description="only clusters that two known cameras or more have seen")


class AdaptBody(Notified):
    """Train a model further on images without labels, of a data set's training split or of a gallery that keeps its
    images: every epoch takes clusters that are sure for identities."""

    kind: Literal["adapt"]
    model: Reference = Field(description="to start from; it stays as it is")
    dataset: Reference | None = Field(default=None, description="its identities are not looked at")
    gallery: Reference | None = Field(default=None, description="instead of `dataset`")
    model_name: Name | None = Field(default=None, description="unique; made from the method when left out")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="what differs from the model's own; `schedule.base_lr` is that of the method's recipe if left out",
    )
    clustering: ClusteringSettings = ClusteringSettings()
    reliability: ReliabilitySettings = ReliabilitySettings()
    device: Device | None = Field(default=None, description="null: REID_DEVICE of the worker")
    seed: int = Field(default=0, ge=0, lt=2**32)


class OpenSet(Body):
    """Some queries show nobody of the gallery: the images of a share of their people are taken out of it."""

    share: float = Field(default=0.5, gt=0, lt=1, description="of the identities of query and gallery, drawn by `seed`")
    seed: int = Field(default=0, ge=0, lt=2**32)


class EvaluateBody(Notified):
    """Measure a model on the query and gallery splits of a data set."""

    kind: Literal["evaluate"]
    model: Reference
    dataset: Reference
    rerank: Literal["none", "qaconv", "k_reciprocal", "qaconv+k_reciprocal"] | None = Field(
        default=None, description="null: qaconv for a model whose method matches local features, else none"
    )
    reranker: Reference | None = Field(
        default=None, description="for qaconv: the model whose matcher re-ranks; null: `model` itself"
    )
    candidates: int | None = Field(
        default=None, ge=1, description="for qaconv: how many of each query's first are re-ranked; null: all"
    )
    flip_average: bool | None = Field(
        default=None, description="means of an image and its mirror image; null: as each model's manifest says"
    )
    multi_query: bool = Field(default=False, description="pictures of one person and camera ask together")
    open_set: OpenSet | None = Field(default=None, description="null: everybody stays in the gallery")


class CalibrateBody(Notified):
    """Learn what a model's scores mean, from images of people whom it was not trained on."""

    kind: Literal["calibrate"]
    model: Reference
    dataset: Reference
    rerank: Literal["none", "qaconv", "k_reciprocal"] = Field(
        default="none", description="the searches whose scores are meant; each has a calibration of its own"
    )


class IndexBody(Notified):
    """Embed a gallery's images anew and rebuild its index, or with `embed` false only that."""

    kind: Literal["index"]
    gallery: Reference
    embed: bool = Field(default=True, description="false: the index is built over the vectors that are there")


class ExportBody(Notified):
    """Write a model for another runtime. The job fails unless what that gives agrees with PyTorch on real images."""

    kind: Literal["export"]
    model: Reference
    format: Literal["onnx", "openvino"]
    dataset: Reference | None = Field(
        default=None, description="whose images both are compared on; null: those the model was trained on"
    )


JobBody = Annotated[
    TrainBody | AdaptBody | EvaluateBody | CalibrateBody | IndexBody | ExportBody | SearchBatchBody,
    Field(discriminator="kind"),
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
    clusters: list[JobCluster]
