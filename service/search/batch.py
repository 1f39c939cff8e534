"""Many searches of one gallery as one: encoded, compared and looked up together, answered one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from reid_core.errors import Fault
from service.db.ids import new_id
from service.db.session import Database
from service.errors import Problem
from service.search.answer import Match, SearchOutcome
from service.search.batch_places import Place, asked_by, find_own, find_places, left_out
from service.search.batch_schemas import BatchAnswer, BatchItemAnswer
from service.search.encoding import ATTEMPTS, Content, EncodedQuery, QueryEncoder, changing_too_fast
from service.search.journal import SearchJournal
from service.search.judging import Judge, Judgement
from service.search.queries import validate_query
from service.search.rerank import Candidate, rerank, retrieve_each
from service.search.rows import FoundImage, SearchedGallery, find_images
from service.search.schemas import Query, StoredQuery
from service.search.snapshots import OpenGallery, Snapshots
from service.search.timing import SearchTimer
from service.settings import Settings

_ROWS_AT_ONCE = 10_000
"""Images looked up by one statement, which SQLite gives 32,766 parameters."""

Encoded = EncodedQuery | Problem


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The outcome of each query, or its problem, and what they were found with."""

    gallery: SearchedGallery
    revision: int
    rerank: str
    timings_ms: dict[str, float]
    outcomes: tuple[SearchOutcome | Problem, ...]

    def answer(self, prefix: str, instance: str) -> BatchAnswer:
        """The outcomes as clients see them; `prefix` is put before links, `instance` is the path that was asked for."""
        return BatchAnswer(
            gallery=self.gallery.id,
            revision=self.revision,
            model=self.gallery.model_id,
            reranker=self.gallery.reranker_id,
            rerank=self.rerank,
            timings_ms=self.timings_ms,
            items=[
                BatchItemAnswer(problem=outcome.answer(instance=instance))
                if isinstance(outcome, Problem)
                else BatchItemAnswer.of(outcome, prefix)
                for outcome in self.outcomes
            ],
        )


class BatchSearcher:
    """Answers batches; `turn` is held while vectors are compared. Threads may share it."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        encoder: QueryEncoder,
        snapshots: Snapshots,
        judge: Judge,
        journal: SearchJournal,
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._database = database
        self._settings = settings
        self._encoder = encoder
        self._snapshots = snapshots
        self._judge = judge
        self._journal = journal
        self._turn = turn

    def search(
        self,
        common: Query,
        queries: Sequence[Query],
        gallery: SearchedGallery,
        contents: Sequence[Content] = (),
        *,
        key_id: str | None,
    ) -> BatchOutcome:
        """The outcome of each of `queries`, which are as `common` but for whom they ask for.

        `contents` are the files of ImageQueries, one each. A query that cannot be answered has its problem in place of
        an outcome.
        """
        timer = SearchTimer()
        calibration = self._judge.calibration(common, gallery)
        encoded = self._encode_others(common, queries, contents, gallery, timer)
        opened, matches = self._find(common, queries, encoded, gallery, timer)
        outcomes: list[SearchOutcome | Problem] = []
        for number, (query, found) in enumerate(zip(queries, matches, strict=True)):
            if isinstance(found, Problem):
                outcomes.append(_below(found, number))
                continue
            judgement = None
            if calibration is not None:
                with timer.stage("judge"):
                    scores = [match.score for match in found]
                    judgement = self._judge.judge(query, gallery, opened, scores, calibration)
            outcomes.append(_outcome(query, gallery, opened, found, judgement))
        for outcome in outcomes:
            if isinstance(outcome, SearchOutcome):
                self._journal.note(key_id=key_id, gallery=gallery.id, search_id=outcome.search_id)
        return BatchOutcome(gallery, opened.revision, common.rerank, timer.timings_ms(), tuple(outcomes))

    def _encode_others(
        self,
        common: Query,
        queries: Sequence[Query],
        contents: Sequence[Content],
        gallery: SearchedGallery,
        timer: SearchTimer,
    ) -> list[Encoded | None]:
        """Each query encoded or its problem; None for images of this gallery, whose features lie in it."""
        encoded: list[Encoded | None] = [None] * len(queries)
        files: dict[int, Content] = dict(enumerate(contents))
        own = find_own(self._database, gallery.id, asked_by(queries))
        with self._database.read() as session:
            for number, query in enumerate(queries):
                try:
                    validate_query(query, gallery, self._settings)
                    if isinstance(query, StoredQuery):
                        path = None if query.image_id in own else self._encoder.file_of(session, query, gallery)
                        if path is not None:
                            files[number] = path.read_bytes
                    elif number not in files:
                        encoded[number] = self._encoder.encode(query, (), gallery, timer)
                except Problem as problem:
                    encoded[number] = problem
        numbers = [number for number in sorted(files) if encoded[number] is None]
        made = self._encoder.encode_each([files[number] for number in numbers], common, gallery, timer)
        for number, one in zip(numbers, made, strict=True):
            encoded[number] = one
        return encoded

    def _find(
        self,
        common: Query,
        queries: Sequence[Query],
        encoded: Sequence[Encoded | None],
        gallery: SearchedGallery,
        timer: SearchTimer,
    ) -> tuple[OpenGallery, list[tuple[Match, ...] | Problem]]:
        """The matches of each query, all found in one revision of the gallery."""
        for attempt in range(ATTEMPTS):
            opened = self._snapshots.current(gallery.id, gallery.revision if attempt == 0 else None)
            with timer.stage("retrieve"):
                places = find_places(self._database, gallery.id, opened, asked_by(queries))
                complete = [
                    self._encode_own(query, places, gallery, opened, timer) if one is None else one
                    for query, one in zip(queries, encoded, strict=True)
                ]
                candidates = self._retrieve(common, queries, complete, places, opened)
            with timer.stage("rerank"):
                candidates = {
                    number: self._reranked(queries[number], complete[number], found, opened)
                    for number, found in candidates.items()
                }
            with timer.stage("retrieve"):
                images = self._images(gallery, opened, candidates)
            if images is not None:
                return opened, [
                    one if isinstance(one, Problem) else _matches(candidates[number], images)
                    for number, one in enumerate(complete)
                ]
        raise changing_too_fast()

    def _encode_own(
        self,
        query: Query,
        places: Mapping[str, Place],
        gallery: SearchedGallery,
        opened: OpenGallery,
        timer: SearchTimer,
    ) -> Encoded:
        """A query by an image of this gallery, from what is stored of it."""
        place = places.get(query.image_id) if isinstance(query, StoredQuery) else None
        if place is not None and place.is_own and opened.snapshot.store.read([place.position]).any():
            return self._encoder.stored(gallery, opened, place.position, size=place.size, with_maps=query.needs_maps)
        try:  # erased or moved since it was looked up
            return self._encoder.encode(query, (), gallery, timer)
        except Problem as problem:
            return problem

    def _retrieve(
        self,
        common: Query,
        queries: Sequence[Query],
        encoded: Sequence[Encoded],
        places: Mapping[str, Place],
        opened: OpenGallery,
    ) -> dict[int, list[Candidate]]:
        """The candidates of each query that has no problem, by its number."""
        numbers = [number for number, one in enumerate(encoded) if isinstance(one, EncodedQuery)]
        vectors = [one.vectors for one in encoded if isinstance(one, EncodedQuery)]
        if not numbers:
            return {}
        own = [left_out(queries[number], places) for number in numbers]
        with self._turn():
            found = retrieve_each(opened, np.concatenate(vectors), common.filters, common.width, own)
        return dict(zip(numbers, found, strict=True))

    def _reranked(
        self, query: Query, encoded: Encoded, candidates: list[Candidate], opened: OpenGallery
    ) -> list[Candidate]:
        """The first `top_k` candidates that reach the query's `min_score`, in the order that it asks for."""
        if query.rerank != "none" and isinstance(encoded, EncodedQuery):
            with self._turn():  # one turn each: other searches come between
                candidates = rerank(candidates, query.rerank, encoded, opened)
        least = query.min_score
        return [candidate for candidate in candidates if least is None or candidate.score >= least][: query.top_k]

    def _images(
        self, gallery: SearchedGallery, opened: OpenGallery, candidates: Mapping[int, Sequence[Candidate]]
    ) -> dict[int, FoundImage] | None:
        """The rows of all that was found, by position; None if one was erased or renumbered since then."""
        positions = sorted({candidate.position for found in candidates.values() for candidate in found})
        images: dict[int, FoundImage] = {}
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            page = positions[start : start + _ROWS_AT_ONCE]
            found = find_images(self._database, gallery.id, opened.generation, page)
            images |= {image.position: image for image in found}
        return images if len(images) == len(positions) else None


def _matches(candidates: Sequence[Candidate], images: Mapping[int, FoundImage]) -> tuple[Match, ...]:
    return tuple(
        Match(images[found.position], found.score, found.retrieval_score, found.retrieval_rank) for found in candidates
    )


def _outcome(
    query: Query,
    gallery: SearchedGallery,
    opened: OpenGallery,
    matches: tuple[Match, ...],
    judgement: Judgement | None,
) -> SearchOutcome:
    return SearchOutcome(
        search_id=new_id("search"),
        gallery=gallery.id,
        revision=opened.revision,
        model=gallery.model_id,
        reranker=gallery.reranker_id,
        rerank=query.rerank,
        timings_ms={},
        matches=matches,
        judgement=judgement,
    )


def _below(problem: Problem, number: int) -> Problem:
    """The problem of the query of that number, its pointers into the batch."""
    errors = [Fault(f"/queries/{number}{fault.pointer}", fault.code, fault.message) for fault in problem.errors]
    return Problem(problem.slug, problem.detail, hint=problem.hint, errors=errors)
