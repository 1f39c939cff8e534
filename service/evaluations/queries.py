"""The results of an evaluation, query by query: a file in its job's folder, beside the row that has the means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from service.db.tables import Evaluation
from service.errors import Problem
from service.settings import Settings
from service.storage import write_file

_NAME = "queries.json"


@dataclass(frozen=True, slots=True)
class QueryResults:
    """Q queries in their order; images are given by their places in the data set's `query` and `gallery` split.

    Attributes:
        queries: (Q,) each one's image, of several the first.
        people: (Q,) codes of whom they show, equal for equal people.
        matches: (Q,) how many gallery images show the same person and count.
        average_precision: (Q,) None where a query has no match.
        first_rank: (Q,) of the best match from 1; 0 where there is none.
        first: (Q, 10) or fewer gallery images that come first.
        scores: (Q, 10) theirs; None for one that is not finite.
    """

    queries: Sequence[int]
    people: Sequence[int]
    matches: Sequence[int]
    average_precision: Sequence[float | None]
    first_rank: Sequence[int]
    first: Sequence[Sequence[int]]
    scores: Sequence[Sequence[float | None]]


def write_results(folder: Path, results: QueryResults) -> None:
    """Writes them to the job's folder; those of an earlier attempt are gone."""
    write_file(folder / _NAME, json.dumps(asdict(results), allow_nan=False, separators=(",", ":")).encode())


def read_results(settings: Settings, evaluation: Evaluation) -> QueryResults:
    """The results of the evaluation, query by query; raises 409 for one of before, or whose file is gone."""
    path = settings.jobs_dir / evaluation.job_id / _NAME if evaluation.job_id else None
    if path is None or not path.is_file():
        raise Problem(
            "wrong-state",
            f"Evaluation {evaluation.id!r} has not kept what it found for each query.",
            hint="Evaluations of earlier versions have not; evaluate the model once more.",
        )
    return QueryResults(**json.loads(path.read_bytes()))
