"""The bodies and answers of the model routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pydantic import (
    Field,
    with_config,
)
from typing_extensions import TypedDict

from service.db.tables import Evaluation, Model
from service.evaluations.schemas import EvaluationAnswer
from service.models.calibrations import describe_calibrations
from service.models.engines import describe_engine
from service.schemas import Answer, Body, Name, Omittable, Pair, SelfLink, Time, Triple, example
from service.settings import Settings


class ModelChange(Body):
    """A model's new name."""

    name: Name


@with_config(extra="allow")
class Imported(TypedDict, total=False):
    """The file that a model was imported from."""

    file: str
    bytes: int
    sha256: str


@with_config(extra="allow")
class Transfer(TypedDict, total=False):
    """The transfer of given weights into a network: counts of those taken and of those that another project had named,
    and the names of the others; `file` where they came from one."""

    taken: int
    left_out: list[str]
    as_initialised: list[str]
    renamed: int
    file: str
    sha256: str


@with_config(extra="allow")
class TrainedOn(TypedDict, total=False):
    """A data set as it was when a model was trained on it."""

    id: str
    name: str
    fingerprint: str | None
    split: str
    protocol: dict[str, Any] | None


@with_config(extra="allow")
class TrainedStage(TypedDict, total=False):
    """One stage of a chain: ids of its data sets, and what it took from the network before."""

    datasets: list[str]
    weights: Transfer | None


@with_config(extra="allow")
class KeptEpoch(TypedDict, total=False):
    """The epoch whose network was kept: `epoch` of `epochs` that were trained, in the last stage of a chain, with the
    mAP of held-out people; `stopped_early` where `settings.validation.patience` ended it."""

    rule: str
    epoch: int
    epochs: int
    mAP: float | None
    stopped_early: bool


@with_config(extra="allow")
class Lineage(TypedDict, total=False):
    """The lineage of a model: data sets, weights and teacher that it was made from."""

    datasets: list[TrainedOn]
    chain: list[TrainedStage]
    parent: str | None
    init_from: str | dict[str, Any] | None
    weights: Transfer | None
    teacher: str | None
    seed: int
    kept: KeptEpoch
    adapted: dict[str, Any]
    imported: Imported


@with_config(extra="allow")
class Preprocessing(TypedDict, total=False):
    """The steps from an image to the network's input."""

    height: int
    width: int
    mean: Triple
    std: Triple
    interpolation: str
    flip_average: bool
    colour: str
    range: Pair
    layout: str


class FileLinks(Answer):
    """Links of a file."""

    content: str


class ModelFile(Answer):
    """A file of a model: weights, manifest, exports."""

    name: str
    bytes: int
    sha256: str
    links: FileLinks


class EngineAnswer(Answer):
    """The engine that runs a model's network for searches and index jobs on CPUs; on GPUs PyTorch does."""

    name: Literal["torch", "onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16"] | None = Field(description="its arithmetic where the CPU has units for it")
    difference: float | None = Field(
        description="the largest distance of its embeddings and maps, of unit length, from PyTorch's in float32"
    )
    images: int = Field(description="the images on which that was measured")
    reason: str | None = Field(description="why it is PyTorch, or cannot be used")


class ReliabilityBin(Answer):
    """Pairs of held-out people by the probability they were given; both kinds of pairs weigh alike."""

    low: float
    high: float
    predicted: float = Field(description="the mean probability of these pairs")
    observed: float = Field(description="the share of them that show the same person")
    share: float = Field(description="the share of all pairs that lies here")


@with_config(extra="allow")
class FittedOn(TypedDict, total=False):
    """The images of a calibration."""

    dataset: str
    name: str
    fingerprint: str | None
    people: str
    identities: int
    cameras: int
    images: int
    same_pairs: int
    different_pairs: int


class FitAnswer(Answer):
    """A curve from scores to evidence, and how well it holds for people who were held out."""

    kind: Literal["logistic", "isotonic"] = Field(description="the curve with the lower `log_loss`")
    log_loss: dict[str, float] = Field(description="of both kinds of curve on held-out people; 0.69 says nothing")
    expected_calibration_error: float = Field(description="mean distance of `predicted` and `observed`, held out")
    reliability: list[ReliabilityBin]


class CalibrationAnswer(FitAnswer):
    """A calibration: what a model's scores mean in searches that re-rank so."""

    rerank: Literal["none", "qaconv", "k_reciprocal"]
    persons: Omittable[FitAnswer] = Field(
        default=None, description="the like of persons' scores, of searches with `group_by`; absent of earlier versions"
    )
    fitted_on: FittedOn


class ModelLinks(SelfLink):
    """Links of a model."""

    card: str
    bundle: str
    job: Omittable[str] = None


class ModelAnswer(Answer):
    """A model: what it was made from, what it reached, and its files."""

    model_config = example(
        id="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        name="lobby-baseline",
        method="bnneck",
        settings={"backbone": "resnet50", "image": {"height": 256, "width": 128}},
        lineage={"datasets": [], "parent": None, "init_from": "imagenet", "teacher": None, "seed": 0},
        embedding_size=2048,
        preprocessing={"height": 256, "width": 128, "interpolation": "bilinear", "flip_average": False},
        evaluations=[],
        calibrations=[],
        engine={"name": "openvino", "precision": "fp32", "difference": 4e-7, "images": 16, "reason": None},
        files=[
            {
                "name": "weights.safetensors",
                "bytes": 94389104,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "links": {"content": "/models/mdl_01…/files/weights.safetensors"},
            }
        ],
        created_at="2026-01-31T12:00:00Z",
        job=None,
        links={"self": "/models/mdl_01…", "card": "/models/mdl_01…/card", "bundle": "/models/mdl_01…/bundle"},
    )

    id: str
    name: str
    method: str
    settings: dict[str, Any] = Field(description="every setting of its method; of `external`, what its check found")
    lineage: Lineage
    embedding_size: int
    preprocessing: Preprocessing
    evaluations: list[EvaluationAnswer] = Field(description="newest first")
    calibrations: list[CalibrationAnswer] = Field(description="one for each `rerank` that has one; docs/search.md")
    engine: EngineAnswer
    files: list[ModelFile]
    created_at: Time
    job: str | None
    links: ModelLinks

    @classmethod
    def of(cls, model: Model, evaluations: Sequence[Evaluation], settings: Settings, prefix: str = "") -> ModelAnswer:
        """The model as clients see it, with what it reached; `prefix` is put before links."""
        here = f"{prefix}/models/{model.id}"
        return cls(
            id=model.id,
            name=model.name,
            method=model.method,
            settings=model.settings,
            lineage=cast("Lineage", model.lineage),
            embedding_size=model.embedding_size,
            preprocessing=cast("Preprocessing", model.preprocessing),
            evaluations=[EvaluationAnswer.of(evaluation, prefix) for evaluation in evaluations],
            calibrations=[CalibrationAnswer(**value) for value in describe_calibrations(settings, model.id)],
            engine=EngineAnswer(**describe_engine(model, settings)),
            files=[
                ModelFile(name=name, **facts, links=FileLinks(content=f"{here}/files/{name}"))
                for name, facts in model.files.items()
            ],
            created_at=model.created_at,
            job=model.job_id,
            links=ModelLinks(
                self=here,
                card=f"{here}/card",
                bundle=f"{here}/bundle",
                job=f"{prefix}/jobs/{model.job_id}" if model.job_id else None,
            ),
        )
