"""The failures of an evaluation: its worst queries, hardest people, confused cameras, and labels that may be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.data.records import DISTRACTOR, Split
from service.db.tables import Dataset, DatasetImage, Evaluation
from service.errors import Problem
from service.evaluations.failures_schemas import (
    ConfusedCameras,
    FailedQuery,
    FailuresAnswer,
    FailuresLinks,
    HardIdentity,
    LabelSuspect,
    RankedResult,
)
from service.evaluations.queries import QueryResults, read_results
from service.evaluations.schemas import ShownImage, failure_links
from service.evaluations.shown import shown_images
from service.settings import Settings

NEIGHBOURS = 5
"""So many results with another name make a label suspect."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The results of all queries, and (identity, camera) of the images of both splits by their places."""

    results: QueryResults
    query: Mapping[int, tuple[str, str]]
    gallery: Mapping[int, tuple[str, str]]

    def identity(self, query: int) -> str:
        return self.query[self.results.queries[query]][0]

    def names(self, query: int) -> list[str]:
        """The identities of the first results."""
        return [self.gallery[place][0] for place in self.results.first[query]]

    def valid(self) -> list[int]:
        """The queries that have a match."""
        return [query for query, matches in enumerate(self.results.matches) if matches]

    def precision(self, query: int) -> float:
        return self.results.average_precision[query] or 0.0


def find_failures(
    session: Session, settings: Settings, evaluation: Evaluation, *, limit: int, prefix: str = ""
) -> FailuresAnswer:
    """The failures of the evaluation; raises 409 where it has not kept its results, or its data set is gone."""
    seen = _see(session, settings, evaluation)
    worst = sorted(seen.valid(), key=seen.precision)[:limit]
    suspects = _suspects(seen, everybody=not evaluation.protocol.get("open_set"))[:limit]
    shown = _Shown.of(session, evaluation.dataset_id, seen, [*worst, *suspects], prefix)
    itself = f"{prefix}/evaluations/{evaluation.id}"
    return FailuresAnswer(
        worst_queries=[_failed(seen, shown, query) for query in worst],
        hardest_identities=_hardest(seen)[:limit],
        confused_cameras=_confused(seen)[:limit],
        label_suspects=[_suspect(seen, shown, query) for query in suspects],
        links=FailuresLinks(self=f"{itself}/failures", evaluation=itself, **failure_links(itself)),
    )


def find_confused_cameras(session: Session, settings: Settings, evaluation: Evaluation) -> list[ConfusedCameras]:
    """All pairs of cameras that were confused, those of most queries first; raises 409 as `find_failures` does."""
    return _confused(_see(session, settings, evaluation))


@dataclass(frozen=True, slots=True)
class _Shown:
    """The images that the answer shows, by their places."""

    query: Mapping[int, ShownImage]
    gallery: Mapping[int, ShownImage]

    @classmethod
    def of(cls, session: Session, dataset_id: str, seen: _Seen, queries: Sequence[int], prefix: str) -> _Shown:
        found = (place for query in queries for place in seen.results.first[query])
        return cls(
            shown_images(session, dataset_id, "query", (seen.results.queries[query] for query in queries), prefix),
            shown_images(session, dataset_id, "gallery", found, prefix),
        )


def _see(session: Session, settings: Settings, evaluation: Evaluation) -> _Seen:
    results = read_results(settings, evaluation)
    if session.get(Dataset, evaluation.dataset_id) is None:
        raise Problem(
            "wrong-state",
            f"The data set of evaluation {evaluation.id!r} is gone.",
            hint="Register it again and evaluate the model once more.",
        )
    query, gallery = (_labels(session, evaluation.dataset_id, split) for split in ("query", "gallery"))
    return _Seen(results, query, gallery)


def _labels(session: Session, dataset_id: str, split: Split) -> dict[int, tuple[str, str]]:
    columns = select(DatasetImage.position, DatasetImage.identity, DatasetImage.camera)
    in_split = columns.where(DatasetImage.dataset_id == dataset_id, DatasetImage.split == split)
    return {position: (identity, camera) for position, identity, camera in session.execute(in_split)}


def _failed(seen: _Seen, shown: _Shown, query: int) -> FailedQuery:
    return FailedQuery(
        image=shown.query[seen.results.queries[query]],
        average_precision=seen.precision(query),
        first_rank=seen.results.first_rank[query],
        matches=seen.results.matches[query],
        results=_results(seen, shown, query),
    )


def _results(seen: _Seen, shown: _Shown, query: int) -> list[RankedResult]:
    first, scores = seen.results.first[query], seen.results.scores[query]
    return [
        RankedResult(image=shown.gallery[place], score=score, match=name == seen.identity(query))
        for place, score, name in zip(first, scores, seen.names(query), strict=True)
    ]


def _hardest(seen: _Seen) -> list[HardIdentity]:
    precision: dict[str, list[float]] = {}
    for query in seen.valid():
        precision.setdefault(seen.identity(query), []).append(seen.precision(query))
    people = [
        HardIdentity(identity=identity, queries=len(values), mAP=sum(values) / len(values))
        for identity, values in precision.items()
    ]
    return sorted(people, key=lambda person: person.mAP)


def _confused(seen: _Seen) -> list[ConfusedCameras]:
    asked: Counter[str] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for query in seen.valid():
        camera = seen.query[seen.results.queries[query]][1]
        asked[camera] += 1
        if seen.results.first_rank[query] > 1:
            wrong[camera, seen.gallery[seen.results.first[query][0]][1]] += 1
    return [
        ConfusedCameras(query=query, gallery=gallery, wrong_first=count, queries=asked[query])
        for (query, gallery), count in wrong.most_common()
    ]


def _suspects(seen: _Seen, *, everybody: bool) -> list[int]:
    """The queries whose first results all bear another name, those first whose results agree most on it.

    Where people were taken out of the gallery, as for an open set, only queries that have a match.
    """
    queries = range(len(seen.results.queries)) if everybody else seen.valid()
    suspects = [
        query
        for query in queries
        if len(names := seen.names(query)[:NEIGHBOURS]) == NEIGHBOURS and seen.identity(query) not in names
    ]
    return sorted(suspects, key=lambda query: (-_nearest(seen, query)[1], -(seen.results.scores[query][0] or 0.0)))


def _nearest(seen: _Seen, query: int) -> tuple[str | None, int]:
    """The name that most of the first results bear, and how many; images of nobody show different people."""
    names = Counter(name for name in seen.names(query)[:NEIGHBOURS] if name != DISTRACTOR)
    return names.most_common(1)[0] if names else (None, 0)


def _suspect(seen: _Seen, shown: _Shown, query: int) -> LabelSuspect:
    identity, agreeing = _nearest(seen, query)
    return LabelSuspect(
        image=shown.query[seen.results.queries[query]],
        nearest_identity=identity,
        agreeing=agreeing,
        results=_results(seen, shown, query)[:NEIGHBOURS],
    )
