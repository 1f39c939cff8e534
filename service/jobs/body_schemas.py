"""The bodies of POST /jobs: one for every kind of job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from service.jobs.search_batch_schemas import SearchBatchBody
from service.jobs.webhook_schemas import Notified
from service.schemas import Body, Name, Reference


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


DEFAULT_THRESHOLD, DEFAULT_LEAST = 0.4, 2
"""Those of `reid_core.clustering`, which a start does without; a test compares the two."""


class ClusteringSettings(Body):
    """The settings of clustering."""

    threshold: float = Field(
        default=DEFAULT_THRESHOLD,
        gt=0.05,
        lt=0.95,
        description="Jaccard distance up to which two images are connected; larger makes larger clusters, less sure",
    )
    least: int = Field(
        default=DEFAULT_LEAST, ge=2, le=1000, description="images around which a cluster grows, at least"
    )


class ClusterBody(ClusteringSettings, Notified):
    """Group a gallery's images without identity into proposed persons."""


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
