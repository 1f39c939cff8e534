"""What POST /jobs takes: one body for every kind of job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from service.schemas import Body, Name, Reference


class DatasetPart(Body):
    """A data set with the part of it that is trained on."""

    id: Reference
    split: Literal["train", "all"] = Field(
        default="train", description="all: every picture of every split, each file once, without distractors"
    )


Joined = Reference | DatasetPart | Annotated[list[Reference | DatasetPart], Field(min_length=1, max_length=50)]
"""A data set, or several to be joined."""

Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class WeightsFile(Body):
    """A safetensors file in REID_WEIGHTS_DIR, by its plain file name."""

    weights: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00]+$")]


class StageBody(Body):
    """One stage of a chain: a training that starts from the network of the stage before."""

    dataset: Joined
    settings: dict[str, Any] = Field(
        default_factory=dict, description="what differs from the job's `settings` in this stage alone"
    )


class TrainBody(Body):
    """Train a network, on `dataset` or stage by stage on a `chain` of them. Several data sets in one place are joined,
    identities and cameras kept apart."""

    kind: Literal["train"]
    method: str
    dataset: Joined | None = None
    chain: Annotated[list[StageBody], Field(min_length=1, max_length=10)] | None = Field(
        default=None, description="instead of `dataset`; only the last stage's network becomes a model"
    )
    model_name: Name | None = Field(default=None, description="unique; made from the method when left out")
    settings: dict[str, Any] = Field(default_factory=dict, description="only what differs from the method's recipe")
    init_from: WeightsFile | Reference | None = Field(
        default=None, description='"imagenet", a model, {"weights": file name}, or null: random weights'
    )
    teacher: Reference | None = Field(default=None, description="for method std: the model to learn from")
    device: Device | None = Field(default=None, description="null: REID_DEVICE of the worker")
    seed: int = Field(default=0, ge=0, lt=2**32)


class EvaluateBody(Body):
    """Measure a model on the query and gallery splits of a data set."""

    kind: Literal["evaluate"]
    model: Reference
    dataset: Reference
    rerank: Literal["none", "qaconv", "k_reciprocal"] = "none"
    reranker: Reference | None = Field(
        default=None, description="for qaconv: the model whose matcher re-ranks; null: `model` itself"
    )
    candidates: int | None = Field(
        default=None, ge=1, description="for qaconv: how many of each query's first are re-ranked; null: all"
    )
    flip_average: bool | None = Field(
        default=None, description="means of a picture and its mirror image; null: as each model's manifest says"
    )


class IndexBody(Body):
    """Embed a gallery's pictures anew and rebuild its index."""

    kind: Literal["index"]
    gallery: Reference


class ExportBody(Body):
    """Write a model for another runtime. The job fails unless what that gives agrees with PyTorch on real pictures."""

    kind: Literal["export"]
    model: Reference
    format: Literal["onnx", "openvino"]
    dataset: Reference | None = Field(
        default=None, description="whose pictures both are compared on; null: those the model was trained on"
    )


JobBody = Annotated[TrainBody | EvaluateBody | IndexBody | ExportBody, Field(discriminator="kind")]
