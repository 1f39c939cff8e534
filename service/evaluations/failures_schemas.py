"""The answer that shows where an evaluation failed."""

from __future__ import annotations

from pydantic import Field

from service.evaluations.schemas import ShownImage, failure_links
from service.schemas import Answer, SelfLink, example


class RankedResult(Answer):
    """A gallery image among the first results; `match` is true where it shows the query's person."""

    image: ShownImage
    score: float | None
    match: bool


class FailedQuery(Answer):
    """A query with what came first for it."""

    image: ShownImage
    average_precision: float
    first_rank: int = Field(description="of the best match, from 1")
    matches: int
    results: list[RankedResult] = Field(description="the first results, without what the query's own camera took")


class HardIdentity(Answer):
    """A person and the mean average precision of their queries."""

    identity: str
    queries: int
    mAP: float  # noqa: N815


class ConfusedCameras(Answer):
    """The number of queries of one camera whose first result, of the other camera, shows another person."""

    query: str
    gallery: str
    wrong_first: int
    queries: int = Field(description="that the query's camera has, with a match")


class LabelSuspect(Answer):
    """A query whose first five results all bear another name; perhaps its label is wrong."""

    image: ShownImage
    nearest_identity: str | None = Field(description="the name that most of the five bear; null for images of nobody")
    agreeing: int = Field(description="how many of the five bear it")
    results: list[RankedResult] = Field(description="the first five")


class FailuresLinks(SelfLink):
    """Links of the failures: themselves, their evaluation, and each list as a picture."""

    evaluation: str
    worst_queries: str
    hardest_identities: str
    confused_cameras: str
    label_suspects: str


class FailuresAnswer(Answer):
    """The failures of an evaluation; each list has the worst first, and at most `limit` entries."""

    model_config = example(
        worst_queries=[],
        hardest_identities=[{"identity": "0007", "queries": 2, "mAP": 0.12}],
        confused_cameras=[{"query": "1", "gallery": "3", "wrong_first": 4, "queries": 20}],
        label_suspects=[],
        links={
            "self": "/evaluations/eval_01…/failures",
            "evaluation": "/evaluations/eval_01…",
            **failure_links("/evaluations/eval_01…"),
        },
    )

    worst_queries: list[FailedQuery]
    hardest_identities: list[HardIdentity]
    confused_cameras: list[ConfusedCameras]
    label_suspects: list[LabelSuspect]
    links: FailuresLinks
