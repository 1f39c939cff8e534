"""The meaning of a search's scores: probabilities, a verdict, and a warning where they are not to be believed."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.calibration.curves import logit, probability, sigmoid
from reid_core.calibration.folds import LEAST_PEOPLE
from reid_core.calibration.persons import posterior
from reid_core.calibration.record import Calibration
from reid_core.calibration.shift import Origin, Summary, summarise_images, summarise_people
from reid_core.calibration.strangers import Strangers
from service.db.session import Database
from service.errors import Problem
from service.models.calibrations import calibrations_of
from service.search.encoding import QueryEncoder, changing_too_fast
from service.search.labels import Labels, count_people, read_labels
from service.search.queries import impossible
from service.search.rows import SearchedGallery
from service.search.schemas import Query, SearchWarning, Verdict
from service.search.snapshots import OpenGallery, Snapshots
from service.search.strangers import compare_strangers, rerank_strangers
from service.settings import Settings

PRESENT = 0.5
"""The probability that whoever is searched for is in the gallery at all, before any score is seen."""

_SUMMARISED, _RUN = 2000, 20
"""Images by which a gallery is compared with a calibration; of more, runs of so many spread over them."""

_UNNOTICED = 0.01
"""Share of a gallery's images that may come and go before it is looked at again."""

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Judgement:
    """The meaning of a search's scores.

    Attributes:
        probabilities: of each result, that it shows who was searched for.
        prior: of any image, before its score is seen.
        threshold: with `far`, the score that strangers reach at that rate.
    """

    probabilities: tuple[float, ...]
    prior: float
    verdict: Verdict | None
    threshold: float | None
    warning: SearchWarning | None

    def of_page(self, query: Query) -> Judgement:
        """This with the probabilities of the page that the query asks for."""
        return replace(self, probabilities=self.probabilities[query.offset or 0 : query.last])


@dataclass(frozen=True, slots=True)
class _Mark:
    """A gallery's state when it was looked at: its generation, and counts of positions, deletions and edits."""

    generation: int
    positions: int
    deletions: int
    edits: int


class Judge:
    """Judges searches. What it learns of a gallery it keeps until that has changed noticeably. Threads may share it."""

    def __init__(self, database: Database, settings: Settings, encoder: QueryEncoder) -> None:
        self._database = database
        self._settings = settings
        self._encoder = encoder
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], tuple[_Mark, Any]] = OrderedDict()
        self._learning: dict[tuple[object, ...], threading.Lock] = {}

    def calibration(self, query: Query, gallery: SearchedGallery) -> Calibration | None:
        """The calibration of such searches; raises the 409 problem where the query needs one and there is none."""
        model_id = _scorer(query, gallery)
        found = calibrations_of(self._settings, model_id).get(query.rerank)
        asked = [name for name in ("min_probability", "far") if getattr(query, name) is not None]
        if query.group_by is not None:
            if asked and query.rerank != "none":
                message = f"persons are judged by their embeddings, and this search asks for rerank {query.rerank!r}"
                raise impossible(query, asked[0], "cannot-judge", message, hint="Ask without rerank or group_by.")
            found = found if found is not None and found.persons is not None else None
        if found is None and asked:
            body = f'{{"kind": "calibrate", "model": "{model_id}", "dataset": …, "rerank": "{query.rerank}"}}'
            raise Problem(
                "wrong-state",
                f"Model {model_id!r} has no calibration {_of_what(query)}, which {asked[0]} needs.",
                hint=f"Make one: POST /jobs {body}.",
            )
        return found

    def judge(
        self,
        query: Query,
        gallery: SearchedGallery,
        opened: OpenGallery,
        scores: Sequence[float],
        calibration: Calibration,
    ) -> Judgement:
        """The meaning of results' `scores`, best first; of a search by person those of all persons that it found.

        Raises:
            Problem: 422 where `far` is lower than the gallery's images can tell.
        """
        people = self._learn(opened, (gallery.id, "people"), partial(count_people, self._database, gallery.id))
        if query.group_by is None:
            prior = PRESENT / max(1, people * _share_seen(query, gallery))
            probabilities = probability(calibration.evidence(scores), prior).tolist()
        else:
            people = max(1, people, len(scores))
            prior = PRESENT / people
            probabilities = posterior(calibration.person_evidence(scores), people, PRESENT).tolist()
        threshold, votes = None, list[Verdict]()
        if query.min_probability is not None:
            least = query.min_probability
            votes.append(_vote(probabilities, least, min(least, 1 - least)))
        if query.far is not None:
            threshold, vote = self._vote_by_rate(query, gallery, opened, scores, query.far)
            votes.append(vote)
        verdict, warning = _joined(votes) if votes else None, self._warn(query, gallery, opened, calibration)
        return Judgement(tuple(probabilities), prior, verdict, threshold, warning)

    def judge_pair(
        self, query: Query, gallery: SearchedGallery, snapshots: Snapshots, score: float, calibration: Calibration
    ) -> dict[str, Any]:
        """Probability, verdict and warning of a verification's `score`, at even odds before it is seen."""
        evidence = calibration.evidence if query.group_by is None else calibration.person_evidence
        (chance,) = probability(evidence([score])).tolist()
        least = query.min_probability or 0.5
        words = {"match": "same", "unsure": "unsure", "unknown": "different"}
        told = {"probability": chance, "verdict": words[_vote([chance], least, min(least, 1 - least))]}
        if gallery.images:
            told["warning"] = self._warn(query, gallery, snapshots.current(gallery.id), calibration)
        return told

    def _vote_by_rate(
        self, query: Query, gallery: SearchedGallery, opened: OpenGallery, scores: Sequence[float], rate: float
    ) -> tuple[float, Verdict]:
        """The score that strangers reach at `rate`, and the verdict by it."""
        strangers = self._strangers(query, gallery, opened)
        if rate < strangers.lowest_rate:
            raise _too_low(query, rate, strangers)
        threshold, usual = strangers.threshold(rate), strangers.threshold(0.5)
        if query.rerank == "qaconv":  # strangers are known by the scores from which its probabilities come
            return float(sigmoid(threshold)), _vote(logit(scores).tolist(), threshold, usual)
        return threshold, _vote(scores, threshold, usual)

    def _warn(
        self, query: Query, gallery: SearchedGallery, opened: OpenGallery, calibration: Calibration
    ) -> SearchWarning | None:
        """A warning where the gallery's embeddings are unlike those of the calibration, which one model made."""
        if _scorer(query, gallery) != gallery.model_id:
            return None
        origin = calibration.origin
        summary = self._learn(
            opened, (gallery.id, "summary", origin.images_per_person), partial(self._summarise, gallery, opened, origin)
        )
        difference = None if summary is None else origin.difference(summary)
        if difference is None:
            return None
        return SearchWarning(
            code="gallery-unlike-calibration",
            detail=f"{difference} The gallery is unlike that, and its probabilities are not to be believed.",
            hint="Calibrate the model on images of people like these, by these cameras.",
        )

    def _summarise(self, gallery: SearchedGallery, opened: OpenGallery, origin: Origin) -> Summary | None:
        """The summary of the gallery's embeddings; None of too few people to compare."""
        alive = np.flatnonzero(opened.snapshot.alive)
        chosen = alive[_spread_runs(len(alive))]
        labels = self._labels(gallery, opened, chosen.tolist())
        store = opened.snapshot.store
        if labels.num_people >= LEAST_PEOPLE:
            return summarise_people(store.read(labels.positions), labels.people, labels.cameras)
        if len(chosen) < LEAST_PEOPLE * origin.images_per_person:
            return None
        return summarise_images(store.read(chosen), origin.images_per_person)

    def _strangers(self, query: Query, gallery: SearchedGallery, opened: OpenGallery) -> Strangers:
        """Raises 422 where the gallery's labels tell nothing of strangers."""

        def look() -> Strangers | None:
            labels = self._labels(gallery, opened)
            if labels.num_people < 2:
                return None
            if query.rerank == "none":
                return compare_strangers(opened, labels, by_person=query.group_by is not None)
            encode = partial(self._encoder.stored, gallery, opened, with_maps=query.rerank == "qaconv")
            return rerank_strangers(opened, labels, query.rerank, query.width, encode)

        width = 0 if query.rerank == "none" else query.width
        found: Strangers | None = self._learn(
            opened, (gallery.id, "strangers", query.rerank, query.group_by, width), look
        )
        if found is None:
            message = f"far is known by images of different people, and gallery {gallery.name!r} names fewer than two"
            raise impossible(query, "far", "too-few-people", message, hint="Add images with their identity.")
        return found

    def _labels(self, gallery: SearchedGallery, opened: OpenGallery, positions: Sequence[int] | None = None) -> Labels:
        labels = read_labels(self._database, gallery.id, opened, positions)
        if labels is None:
            raise changing_too_fast()
        return labels

    def _learn(self, opened: OpenGallery, key: tuple[object, ...], look: Callable[[], Any]) -> Any:
        """The outcome of `look`, kept until the gallery has changed noticeably; those who ask meanwhile wait."""
        with self._lock:
            turn = self._learning.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                known = self._known.get(key)
            if known is None or _has_changed(known[0], _mark(opened)):
                known = (_mark(opened), look())
                with self._lock:
                    self._known[key] = known
                    self._known.move_to_end(key)
                    if len(self._known) > _KEPT:
                        self._learning.pop(self._known.popitem(last=False)[0], None)
            return known[1]


def _spread_runs(number: int) -> NDArray[np.int64]:
    """Places among `number` images, all or runs spread over them: images of one person are often added together."""
    if number <= _SUMMARISED:
        return np.arange(number)
    starts = np.linspace(0, number - _RUN, _SUMMARISED // _RUN).astype(np.int64)
    return np.asarray((starts[:, None] + np.arange(_RUN)).ravel())


def _mark(opened: OpenGallery) -> _Mark:
    return _Mark(opened.generation, len(opened.snapshot), opened.deletions, opened.edits)


def _has_changed(before: _Mark, now: _Mark) -> bool:
    """True where images were embedded anew, or too many have come and gone for what was learned to hold."""
    changes = sum(abs(getattr(now, name) - getattr(before, name)) for name in ("positions", "deletions", "edits"))
    return before.generation != now.generation or changes > _UNNOTICED * before.positions


def _of_what(query: Query) -> str:
    return f"for rerank {query.rerank!r}" if query.group_by is None else "of persons"


def _scorer(query: Query, gallery: SearchedGallery) -> str:
    """The model whose scores rank."""
    return gallery.reranker_id if query.rerank == "qaconv" and gallery.reranker_id else gallery.model_id


def _share_seen(query: Query, gallery: SearchedGallery) -> float:
    """The share of the gallery that k-reciprocal scores are calibrated for: they are those of candidates alone."""
    return min(1, query.width / max(1, gallery.images)) if query.rerank == "k_reciprocal" else 1


def _too_low(query: Query, rate: float, strangers: Strangers) -> Problem:
    message = (
        f"far is {rate:g}; {strangers.probes} images of {strangers.compared + 1} people tell rates from "
        f"{_round_up(strangers.lowest_rate):g} on"
    )
    return impossible(query, "far", "too-low", message, hint="Ask for a higher rate, or add images with identities.")


def _round_up(rate: float) -> float:
    """The next rate of two digits."""
    last: float = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.ceil(rate / last) * last


def _vote(values: Sequence[float], match: float, unknown: float) -> Verdict:
    """By the best of `values`: a match from `match` on, unknown below `unknown`."""
    if not values or values[0] < unknown:
        return "unknown"
    return "match" if values[0] >= match else "unsure"


def _joined(votes: Sequence[Verdict]) -> Verdict:
    """A match where all say so, unknown where one does."""
    if "unknown" in votes:
        return "unknown"
    return "match" if all(vote == "match" for vote in votes) else "unsure"
