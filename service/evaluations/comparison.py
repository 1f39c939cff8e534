"""Two evaluations compared, query by query; those that asked otherwise are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from reid_core.errors import Fault
from reid_core.evaluation.comparison import PERMUTATIONS, compare
from reid_core.evaluation.interval import RESAMPLES, SEED
from service.db.tables import Evaluation
from service.errors import Problem
from service.evaluations.comparison_schemas import ChangedQuery, ComparedEvaluation, ComparisonAnswer, MeasureDifference
from service.evaluations.queries import QueryResults, read_results
from service.evaluations.shown import shown_images
from service.schemas import SelfLink
from service.settings import Settings

_ASKED_ALIKE = (
    "splits",
    "open_set",
    "multi_query",
    "same_camera",
    "junk",
    "distractors",
    "ties",
    "max_rank",
    "average_precision",
    "query_identities",
    "gallery_identities",
    "distractor_pictures",
    "unknown_camera_pictures",
)
"""What decides which images a query looks for, and among which; models and re-ranking may differ."""


def compare_evaluations(
    session: Session, settings: Settings, a: Evaluation, b: Evaluation, *, limit: int, prefix: str = ""
) -> ComparisonAnswer:
    """b beside a: mAP and rank-1 with the difference of each, and the `limit` queries that changed most.

    Raises 422 where their protocols differ, and 409 where one has not kept what it found for each query.
    """
    found_a, found_b = read_results(settings, a), read_results(settings, b)
    _refuse_unlike(a, b)
    valid = np.array(found_a.first_rank) > 0
    people = np.array(found_a.people)[valid]
    return ComparisonAnswer(
        a=_compared(a, prefix),
        b=_compared(b, prefix),
        measures={
            name: MeasureDifference(**asdict(compare(one[valid], other[valid], people)))
            for name, (one, other) in _measures(found_a, found_b).items()
        },
        valid_queries=int(valid.sum()),
        identities=len(np.unique(people)),
        resamples=RESAMPLES,
        permutations=PERMUTATIONS,
        seed=SEED,
        differs={name: (a.protocol.get(name), b.protocol.get(name)) for name in _unequal(a.protocol, b.protocol)},
        changed=_changed(session, b.dataset_id, found_a, found_b, limit, prefix),
    )


def _refuse_unlike(a: Evaluation, b: Evaluation) -> None:
    unequal = _unequal(a.protocol, b.protocol)
    faults = [
        Fault("/query/b", "differs", f"{name} is {_say(a, name)} in a and {_say(b, name)} in b")
        for name in _ASKED_ALIKE
        if name in unequal
    ]
    if _content(a) != _content(b):
        faults.insert(0, Fault("/query/b", "differs", f"the data set is {_content(a)} in a and {_content(b)} in b"))
    if faults:
        raise Problem(
            "unprocessable",
            f"The evaluations do not ask the same: {'; '.join(fault.message for fault in faults)}.",
            hint="Compare evaluations on one data set, with the same open_set and multi_query.",
            errors=faults,
        )


def _content(evaluation: Evaluation) -> str:
    """The fingerprint of the data set's files; its id where there is none."""
    return evaluation.protocol.get("dataset", {}).get("fingerprint") or evaluation.dataset_id


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def _say(evaluation: Evaluation, name: str) -> str:
    value = evaluation.protocol.get(name)
    return "none" if value is None else str(value)


def _compared(evaluation: Evaluation, prefix: str) -> ComparedEvaluation:
    return ComparedEvaluation(
        id=evaluation.id,
        model=evaluation.model_id,
        rerank=evaluation.rerank,
        links=SelfLink(self=f"{prefix}/evaluations/{evaluation.id}"),
    )


def _measures(a: QueryResults, b: QueryResults) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return {"mAP": (_precision(a), _precision(b)), "rank1": (_first(a), _first(b))}


def _first(results: QueryResults) -> NDArray[np.float64]:
    return np.array([rank == 1 for rank in results.first_rank], dtype=np.float64)


def _precision(results: QueryResults) -> NDArray[np.float64]:
    return np.array(results.average_precision, dtype=np.float64)


def _changed(
    session: Session, dataset_id: str, a: QueryResults, b: QueryResults, limit: int, prefix: str
) -> list[ChangedQuery]:
    change = np.abs(_precision(b) - _precision(a))
    order = np.argsort(-np.nan_to_num(change), kind="stable")[:limit]
    chosen = [query for query in order.tolist() if change[query] > 0]
    images = shown_images(session, dataset_id, "query", (b.queries[query] for query in chosen), prefix)
    return [
        ChangedQuery(
            image=images.get(b.queries[query]),
            average_precision=(a.average_precision[query] or 0, b.average_precision[query] or 0),
            first_rank=(a.first_rank[query], b.first_rank[query]),
        )
        for query in chosen
    ]
