"""The answer of a comparison."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from service.evaluations.schemas import ShownImage
from service.schemas import Answer, Pair, SelfLink, example

Ranks = Annotated[
    tuple[int, int], WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})
]
Both = Annotated[tuple[Any, Any], WithJsonSchema({"type": "array", "items": {}, "minItems": 2, "maxItems": 2})]


class ComparedEvaluation(Answer):
    """One of the two evaluations."""

    id: str
    model: str
    rerank: str
    links: SelfLink


class MeasureDifference(Answer):
    """One measure in both evaluations, over the same queries; queries are paired and people drawn."""

    a: float
    b: float
    difference: float = Field(description="b - a")
    interval: Pair = Field(description="95 % bootstrap interval of the difference, over identities")
    p_value: float = Field(description="that chance makes a difference as large, by a permutation test over identities")
    different: bool = Field(description="p_value is below 0.05")


class ChangedQuery(Answer):
    """A query and what became of it, in a and in b; `image` is null where the data set is gone."""

    image: ShownImage | None
    average_precision: Pair
    first_rank: Ranks


class ComparisonAnswer(Answer):
    """Evaluation b beside evaluation a."""

    model_config = example(
        a={"id": "eval_01…", "model": "mdl_01…", "rerank": "none", "links": {"self": "/evaluations/eval_01…"}},
        b={"id": "eval_02…", "model": "mdl_01…", "rerank": "qaconv", "links": {"self": "/evaluations/eval_02…"}},
        measures={
            "mAP": {
                "a": 0.8,
                "b": 0.87,
                "difference": 0.07,
                "interval": [0.05, 0.09],
                "p_value": 0.0001,
                "different": True,
            }
        },
        valid_queries=80,
        identities=40,
        resamples=1000,
        permutations=10000,
        seed=0,
        differs={"rerank": ["none", "qaconv"]},
        changed=[{"image": None, "average_precision": [0.2, 1.0], "first_rank": [4, 1]}],
    )

    a: ComparedEvaluation
    b: ComparedEvaluation
    measures: dict[str, MeasureDifference] = Field(description="of mAP and rank1")
    valid_queries: int
    identities: int
    resamples: int
    permutations: int
    seed: int
    differs: dict[str, Both] = Field(description="what differs of the protocols without making queries incomparable")
    changed: list[ChangedQuery] = Field(description="by how much their average precision changed, the largest first")
