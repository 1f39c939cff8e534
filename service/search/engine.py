"""The search engine of an API process: loaded models, a snapshot per gallery, and the way from query to answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from sqlalchemy import or_, select

from reid_core.retrieval.index import set_threads
from service.auth import Caller
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import ErasedImage, GalleryImage
from service.decoding import Decoder
from service.errors import Problem
from service.galleries.image_files import find_any_image
from service.kept_searches import KeptMatch, KeptSearch, erase_records, keep_record
from service.search.answer import Match, SearchOutcome
from service.search.batch import BatchOutcome, BatchSearcher
from service.search.batching import Batcher
from service.search.encoding import ATTEMPTS, Content, EncodedQuery, QueryEncoder, changing_too_fast, read_maps
from service.search.examples import NO_EXAMPLES, ExampleFiles
from service.search.explanations.illustrations import Illustrations
from service.search.explanations.pairs import explain
from service.search.journal import SearchJournal
from service.search.judging import Judge
from service.search.models import Encoders, SharedEncoder
from service.search.persons import Person, PersonFinder
from service.search.queries import require_few_examples, validate_query
from service.search.rerank import Candidate, rerank, retrieve
from service.search.rows import FoundImage, SearchedGallery, find_gallery, find_images
from service.search.schemas import ImageQuery, Query, StoredQuery
from service.search.snapshots import OpenGallery, Snapshots
from service.search.timing import SearchTimer
from service.search.upkeep import Upkeep
from service.search.verifying import Verifier
from service.settings import Settings

_Scored = TypeVar("_Scored", Candidate, Person)


class Turns:
    """Lets as many threads compare vectors at a time as there are cores: FAISS gains nothing from several for one."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)
        self._seen = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for a turn of the calling thread, which computes alone until the block ends."""
        with self._free:
            if not hasattr(self._seen, "once"):
                set_threads(1)
                self._seen.once = True
            yield


@dataclass(frozen=True, slots=True)
class _Found:
    """The images, or persons with theirs, that a query has found in `opened`; `scores` count those before the page."""

    opened: OpenGallery
    matches: tuple[Match, ...]
    scores: Sequence[float]
    persons: tuple[Person, ...] | None = None


class Engine:
    """Made when the process starts, closed when it ends; every method may be called from any thread."""

    def __init__(self, database: Database, settings: Settings, decoder: Decoder, journal: SearchJournal) -> None:
        self._database = database
        self._journal = journal
        self._settings = settings
        self._batcher = Batcher()
        self._encoders = Encoders(settings, self._batcher)
        self._snapshots = Snapshots(database, settings)
        self._upkeep = Upkeep(database, self._snapshots)
        self._query_encoder = QueryEncoder(database, settings, self._encoders, self._snapshots, decoder)
        self._judge = Judge(database, settings, self._query_encoder)
        self.verifier = Verifier(database, settings, self._query_encoder, self._snapshots, self._judge, journal)
        self._illustrations = Illustrations(database, settings, self._query_encoder, decoder)
        threads = settings.threads or os.cpu_count() or 1
        torch.set_num_threads(threads)
        self._turns = Turns(threads)
        self._batches = BatchSearcher(
            database, settings, self._query_encoder, self._snapshots, self._judge, journal, self._turns.turn
        )

    def close(self) -> None:
        """Ends the threads, after what they are doing."""
        self._upkeep.close()
        self._batcher.close()

    def encoder(self, model_id: str) -> SharedEncoder:
        """The encoder of that model, which shares its batches with other requests."""
        return self._encoders.get(model_id)

    def search(
        self,
        query: Query,
        images: Sequence[bytes] = (),
        *,
        key_id: str | None,
        examples: ExampleFiles = NO_EXAMPLES,
    ) -> SearchOutcome:
        """The outcome of `query`; `images` are the files of an ImageQuery, `examples` those that move it.

        Raises:
            Problem: 404 for an unknown gallery or image, 410 for an erased one, 409 for a gallery without images or a
                verdict without a calibration, 413 and 415 for files that cannot be taken, 422 for what is impossible,
                507 where there is no room to keep what an explanation needs.
        """
        timer = SearchTimer()
        gallery = self._open(query)
        calibration = self._judge.calibration(query, gallery)
        require_few_examples(query, examples, self._settings)
        encoded = self._query_encoder.encode(query, images, gallery, timer, examples)
        found = self._find(query, gallery, encoded, timer)
        matches, opened = found.matches, found.opened
        if query.explain:
            with timer.stage("explain"):
                matches = _explained(matches, encoded, opened)
        judgement = None
        if calibration is not None:
            with timer.stage("judge"):
                judgement = self._judge.judge(query, gallery, opened, found.scores, calibration).of_page(query)
        outcome = SearchOutcome(
            search_id=new_id("search"),
            gallery=gallery.id,
            revision=opened.revision,
            model=gallery.model_id,
            reranker=gallery.reranker_id,
            rerank=query.rerank,
            timings_ms=timer.timings_ms(),
            matches=matches,
            offset=query.offset or 0,
            persons=found.persons,
            drawable=query.explain and self._settings.explanation_minutes > 0,
            judgement=judgement,
        )
        self._journal.note(key_id=key_id, gallery=gallery.id, search_id=outcome.search_id)
        if outcome.drawable:
            self._keep_record(outcome.search_id, _record(query, outcome, key_id), images)
        return outcome

    def search_batch(
        self, common: ImageQuery, queries: Sequence[Query], contents: Sequence[Content] = (), *, key_id: str | None
    ) -> BatchOutcome:
        """The outcome of each of `queries`, which are as `common` but for whom they ask for; see `BatchSearcher`.

        `contents` are the files of ImageQueries, one each. Raises as `search` for what all of them have in common.
        """
        return self._batches.search(common, queries, self._open(common), contents, key_id=key_id)

    def explanation(self, search_id: str, rank: int, caller: Caller) -> bytes:
        """A PNG of the query and the result at `rank` side by side, with what corresponds; see `Illustrations.draw`."""
        return self._illustrations.draw(search_id, rank, caller)

    def _keep_record(self, search_id: str, record: KeptSearch, images: Sequence[bytes]) -> None:
        """Keeps the record, unless an image that it names has been erased meanwhile."""
        keep_record(self._settings, search_id, record, images)
        named = {record.image_id, *(match.image_id for match in record.results)}
        with self._database.read() as session:
            erased = session.scalars(select(ErasedImage.id).where(ErasedImage.id.in_(named - {None}))).all()
        if erased:  # before the record was there to be found
            erase_records(self._settings, set(erased))

    def _open(self, query: Query) -> SearchedGallery:
        """The gallery, if it can be searched as asked."""
        gallery = find_gallery(self._database, query.gallery)
        if gallery.images == 0 and isinstance(query, StoredQuery):
            with self._database.read() as session:
                find_any_image(session, query.image_id)  # that it was erased is the nearer reason
        validate_query(query, gallery, self._settings)
        if gallery.images == 0:
            raise Problem(
                "no-index",
                f"Gallery {gallery.name!r} holds no images yet.",
                hint=f"Add some: POST /galleries/{gallery.id}/images.",
            )
        return gallery

    def _find(self, query: Query, gallery: SearchedGallery, encoded: EncodedQuery, timer: SearchTimer) -> _Found:
        """Finds images or persons in the gallery's revision that was seen first, or in a later one."""
        for attempt in range(ATTEMPTS):
            opened = self._snapshots.current(gallery.id, gallery.revision if attempt == 0 else None)
            if query.group_by is not None:
                found = self._persons(query, gallery, opened, encoded, timer)
            else:
                found = self._matches(query, gallery, opened, encoded, timer)
            if found is not None:
                return found
        raise changing_too_fast()

    def _matches(
        self, query: Query, gallery: SearchedGallery, opened: OpenGallery, encoded: EncodedQuery, timer: SearchTimer
    ) -> _Found | None:
        """The images; None if some were renumbered or erased since the snapshot was taken."""
        with timer.stage("retrieve"):
            own = self._own_position(query, gallery.id)
            with self._turns.turn():
                exact = query.offset is not None
                candidates = retrieve(opened, encoded, query.filters, query.width, own, exact=exact)
        if query.rerank != "none":
            with timer.stage("rerank"), self._turns.turn():
                candidates = rerank(candidates, query.rerank, encoded, opened)
        candidates = _cut(candidates, query)
        with timer.stage("retrieve"):
            matches = self._rows_of(gallery.id, opened, candidates[query.offset :])
        return None if matches is None else _Found(opened, matches, [candidate.score for candidate in candidates])

    def _persons(
        self, query: Query, gallery: SearchedGallery, opened: OpenGallery, encoded: EncodedQuery, timer: SearchTimer
    ) -> _Found | None:
        """The persons; None if some of their images were renumbered or erased since the snapshot was taken."""
        with timer.stage("retrieve"), self._turns.turn():
            own = self._own_position(query, gallery.id)
            persons = PersonFinder(self._database, gallery.id, opened, query, encoded, own).find()
            if persons is None:
                return None
            scores = [person.score for person in persons]
            shown = [
                replace(person, candidates=person.candidates[: query.group_size])
                for person in _cut(persons, query)[query.offset :]
            ]
            matches = self._rows_of(gallery.id, opened, [one for person in shown for one in person.candidates])
        return None if matches is None else _Found(opened, matches, scores, tuple(shown))

    def _own_position(self, query: Query, gallery_id: str) -> int | None:
        """The position of the query's own image in the gallery, if that is to be left out."""
        if not isinstance(query, StoredQuery) or not query.exclude_self:
            return None
        itself = or_(GalleryImage.id == query.image_id, GalleryImage.dataset_image_id == query.image_id)
        with self._database.read() as session:
            return session.scalar(select(GalleryImage.position).where(GalleryImage.gallery_id == gallery_id, itself))

    def _rows_of(
        self, gallery_id: str, opened: OpenGallery, candidates: Sequence[Candidate]
    ) -> tuple[Match, ...] | None:
        """The candidates with their rows; None if they were renumbered or one was erased since the snapshot."""
        positions = [candidate.position for candidate in candidates]
        found = find_images(self._database, gallery_id, opened.generation, positions)
        images = {image.position: image for image in found}
        if len(images) != len(positions):
            return None
        return tuple(_match(candidate, images[candidate.position]) for candidate in candidates)


def _cut(found: Sequence[_Scored], query: Query) -> list[_Scored]:
    """The first that reach the query's `min_score`, up to the last result that it asks for."""
    least = query.min_score
    return [one for one in found if least is None or one.score >= least][: query.last]


def _match(candidate: Candidate, image: FoundImage) -> Match:
    return Match(image, candidate.score, candidate.retrieval_score, candidate.retrieval_rank)


def _explained(matches: Sequence[Match], encoded: EncodedQuery, opened: OpenGallery) -> tuple[Match, ...]:
    if not matches:
        return ()
    matching, maps = encoded.need_matching(), read_maps(opened, [match.image.position for match in matches])
    return tuple(
        replace(match, explanation=explain(matching, local, (match.image.width, match.image.height)))
        for match, local in zip(matches, maps, strict=True)
    )


def _record(query: Query, outcome: SearchOutcome, key_id: str | None) -> KeptSearch:
    judgement = outcome.judgement if outcome.persons is None else None  # of persons it is not about their images
    probabilities = judgement.probabilities if judgement else (None,) * len(outcome.matches)
    return KeptSearch(
        gallery=outcome.gallery,
        key_id=key_id,
        image_id=query.image_id if isinstance(query, StoredQuery) else None,
        results=tuple(
            KeptMatch(match.image.id, match.score, match.explanation.image if match.explanation else 0, probability)
            for match, probability in zip(outcome.matches, probabilities, strict=True)
        ),
    )
