"""The answers of the evaluation routes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.db.tables import Evaluation
from service.schemas import Answer, Omittable, Pair, SelfLink, Time, example


class EvaluationLinks(SelfLink):
    """Links of an evaluation: itself, its model, its data set and its job."""

    model: str
    dataset: str
    job: Omittable[str] = None
    failures: Omittable[str] = Field(default=None, description="left out by evaluations of earlier versions")
    worst_queries: Omittable[str] = Field(default=None, description="drawn, as the other failures; with `failures`")
    hardest_identities: Omittable[str] = None
    confused_cameras: Omittable[str] = None
    label_suspects: Omittable[str] = None
    compare: str = Field(description="beside another one; to be called with `&b=` and its id")
    matrix: str
    cmc: str = Field(description="drawn; `.svg` in place of `.png` is drawn as well")
    roc: Omittable[str] = Field(default=None, description="drawn; left out where there is no `verification`")


class ShownImageLinks(SelfLink):
    """Links of an image of a data set."""

    content: str


class ShownImage(Answer):
    """An image of the data set that was evaluated on."""

    id: str
    path: str
    identity: str
    camera: str
    links: ShownImageLinks


class FirstStage(Answer):
    """The accuracy of the embeddings alone, before re-ranking."""

    cmc: dict[str, float]
    mAP: float  # noqa: N815  the field's own spelling


class VerificationAnswer(Answer):
    """The share of pairs of one person that are accepted, at thresholds that few pairs of different people pass.

    Keys are false-accept rates: the share of impostor pairs accepted.
    """

    tpr: dict[str, float] = Field(description="false-accept rate -> share of matching pairs accepted")
    threshold: dict[str, float | None] = Field(description="the score to exceed; null where none need be")
    curve: Omittable[list[Pair]] = Field(
        default=None, description="ROC: (false-accept rate, true-accept rate), rising; of one evaluation, not in lists"
    )
    matching_pairs: int
    impostor_pairs: int


class OpenSetAnswer(Answer):
    """The share of queries that find their person, at thresholds that few queries without one in the gallery pass.

    Keys are false-accept rates: the share of `unmated_queries` with any result above the threshold.
    """

    rate: dict[str, float] = Field(
        description="detection and identification rate: share of `mated_queries` whose first result is right and above"
    )
    threshold: dict[str, float | None] = Field(description="the score to exceed; null where none need be")
    mated_queries: int
    unmated_queries: int
    taken_out_identities: int


class CameraPairAnswer(Answer):
    """The accuracy of the queries of one camera, searched for on one other alone; "" for images without a camera."""

    query: str
    gallery: str
    mAP: float  # noqa: N815
    rank1: float
    valid_queries: int


class EvaluationWarning(Answer):
    """A reason to doubt an evaluation, or the way of re-ranking that it used."""

    code: str
    detail: str
    hint: str


class EvaluationAnswer(Answer):
    """The accuracy of a model on a data set, in shares from 0 to 1."""

    model_config = example(
        id="eval_01jb2c3d4e5f6g7h8j9k0m1n2p",
        model="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        dataset="ds_01jb2c3d4e5f6g7h8j9k0m1n2p",
        rerank="none",
        reranker=None,
        flip_average=False,
        cmc={"1": 0.93, "5": 0.97, "10": 0.98, "20": 0.99},
        mAP=0.87,
        mINP=0.6,
        valid_queries=80,
        queries=80,
        gallery=240,
        interval={"mAP": [0.83, 0.9], "mINP": [0.55, 0.66], "rank1": [0.89, 0.96]},
        verification={
            "tpr": {"0.01": 0.95, "0.001": 0.86, "0.0001": 0.7},
            "threshold": {"0.01": 0.41, "0.001": 0.52, "0.0001": 0.61},
            "curve": [[0.0, 0.31], [1.0, 1.0]],
            "matching_pairs": 640,
            "impostor_pairs": 18560,
        },
        camera_pairs=[{"query": "1", "gallery": "2", "mAP": 0.9, "rank1": 0.92, "valid_queries": 20}],
        protocol={"similarity": "dot product of embeddings, larger is closer", "rerank": "none"},
        created_at="2026-01-31T12:00:00Z",
        job=None,
        links={
            "self": "/evaluations/eval_01…",
            "model": "/models/mdl_01…",
            "dataset": "/datasets/ds_01…",
            "compare": "/evaluations/compare?a=eval_01…",
            "matrix": "/evaluations/matrix",
            "cmc": "/evaluations/eval_01…/cmc.png",
        },
    )

    id: str
    model: str
    dataset: str
    rerank: str
    reranker: str | None
    flip_average: bool | None
    cmc: dict[str, float] = Field(description="rank -> share of queries with a match at that rank or before")
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    valid_queries: int
    queries: int
    gallery: int
    interval: dict[str, Pair] = Field(description="95 % intervals of mAP, mINP and rank1")
    verification: Omittable[VerificationAnswer] = Field(
        default=None, description="left out by older evaluations, and where only candidates are matched"
    )
    camera_pairs: Omittable[list[CameraPairAnswer]] = Field(
        default=None, description="of one evaluation, not in lists; left out by older ones"
    )
    open_set: Omittable[OpenSetAnswer] = Field(default=None, description="where one was asked for")
    first_stage: Omittable[FirstStage] = None
    warnings: Omittable[list[EvaluationWarning]] = None
    protocol: dict[str, Any] = Field(description="how the accuracies came about")
    created_at: Time
    job: str | None
    links: EvaluationLinks

    @classmethod
    def of(cls, evaluation: Evaluation, prefix: str = "", *, whole: bool = False) -> EvaluationAnswer:
        """The evaluation as clients see it, `whole` or without what is long; `prefix` is put before links."""
        itself = f"{prefix}/evaluations/{evaluation.id}"
        return cls(
            id=evaluation.id,
            model=evaluation.model_id,
            dataset=evaluation.dataset_id,
            rerank=evaluation.rerank,
            reranker=evaluation.reranker_id,
            flip_average=evaluation.protocol.get("flip_average", False),
            **(evaluation.metrics if whole else _shortened(evaluation.metrics)),
            protocol=evaluation.protocol,
            created_at=evaluation.created_at,
            job=evaluation.job_id,
            links=EvaluationLinks(
                self=itself,
                model=f"{prefix}/models/{evaluation.model_id}",
                dataset=f"{prefix}/datasets/{evaluation.dataset_id}",
                job=f"{prefix}/jobs/{evaluation.job_id}" if evaluation.job_id else None,
                compare=f"{prefix}/evaluations/compare?a={evaluation.id}",
                matrix=f"{prefix}/evaluations/matrix",
                cmc=f"{itself}/cmc.png",
                roc=f"{itself}/roc.png" if evaluation.metrics.get("verification") else None,
                **(failure_links(itself) | {"failures": f"{itself}/failures"} if _kept_queries(evaluation) else {}),
            ),
        )


def failure_links(evaluation: str) -> dict[str, str]:
    """The pictures of its failures, by the names of their lists; `evaluation` is its own link."""
    views = ("worst_queries", "hardest_identities", "confused_cameras", "label_suspects")
    return {view: f"{evaluation}/failures/{view}.png" for view in views}


def _kept_queries(evaluation: Evaluation) -> bool:
    """Evaluations that kept what they found for each query say how queries asked."""
    return "multi_query" in evaluation.protocol


def _shortened(metrics: dict[str, Any]) -> dict[str, Any]:
    """Without the curve and the table of cameras, tens of kilobytes."""
    short = {name: value for name, value in metrics.items() if name != "camera_pairs"}
    if short.get("verification"):
        short["verification"] = {name: value for name, value in short["verification"].items() if name != "curve"}
    return short


class EvaluatedModel(Answer):
    """A model of the matrix."""

    id: str
    name: str
    method: str


class EvaluatedDataset(Answer):
    """A data set of the matrix; `name` is null once it is deleted."""

    id: str
    name: str | None


class QuotedAnswer(Answer):
    """A paper's accuracy on a data set of the matrix: quoted, not measured here."""

    method: str = Field(description="the row's name in the paper")
    dataset: str
    mAP: float | None  # noqa: N815 - the field's name for it
    rank1: float | None
    trained_on: list[str]
    protocol: str
    source: str
    place: str = Field(description="the table in the source")


class MatrixAnswer(Answer):
    """Models x data sets: `cells[model id][dataset id]` is the newest evaluation of that pair. `quoted` are numbers of
    papers about these data sets, recognised by their format and size."""

    models: list[EvaluatedModel]
    datasets: list[EvaluatedDataset]
    cells: dict[str, dict[str, EvaluationAnswer]]
    quoted: list[QuotedAnswer]
