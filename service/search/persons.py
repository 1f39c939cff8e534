"""Searching by person: the images of each together, the best persons first.

Persons are sought among the images closest to the query. Each scores the mean of all its images, those beyond the
closest included; where these are re-ranked, its best image's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import Select, bindparam, select

from reid_core.data.records import DISTRACTOR
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.search.encoding import EncodedQuery
from service.search.rerank import Candidate, rerank, retrieve
from service.search.schemas import Query
from service.search.snapshots import OpenGallery

_WIDER = 4
"""Times as many images are looked at where these show too few persons."""

_ROWS_PER_STATEMENT = 5000

_IMAGES = (
    select(GalleryImage.position, GalleryImage.identity)
    .join(Gallery, Gallery.id == GalleryImage.gallery_id)
    .where(GalleryImage.gallery_id == bindparam("gallery"), Gallery.generation == bindparam("generation"))
)
_AT = _IMAGES.where(GalleryImage.position.in_(bindparam("values", expanding=True)))
_OF = _IMAGES.where(GalleryImage.identity.in_(bindparam("values", expanding=True)))


@dataclass(frozen=True, slots=True)
class Person:
    """A person that was found, or an image that shows nobody in particular and stands alone: `identity` is None then.

    `score` ranks, larger is better; `candidates` are its images that were looked at, best first.
    """

    identity: str | None
    score: float
    candidates: tuple[Candidate, ...]


class PersonFinder:
    """The persons of one gallery, as of one snapshot, for one query; `own` is a position that is left out."""

    def __init__(
        self,
        database: Database,
        gallery_id: str,
        opened: OpenGallery,
        query: Query,
        encoded: EncodedQuery,
        own: int | None,
    ) -> None:
        self._database = database
        self._gallery_id = gallery_id
        self._opened = opened
        self._query = query
        self._encoded = encoded
        self._own = own

    def find(self) -> list[Person] | None:
        """The persons, best first, `query.last` or more where there are so many; None where rows have changed since."""
        nearest, names = self._nearest()
        if names is None:
            return None
        if self._query.rerank != "none":
            looked_at = _looked_at(nearest, names, self._query)
            return _grouped(rerank(looked_at, self._query.rerank, self._encoded, self._opened), names, mean=False)
        more, others = self._others(nearest, names)
        return _grouped(_ordered([*nearest, *more]), names | others, mean=True)

    def _nearest(self) -> tuple[list[Candidate], dict[int, str | None] | None]:
        """The images closest to the query, so many that they show enough persons, and their identities."""
        query, width = self._query, self._query.width
        while True:
            nearest = retrieve(
                self._opened, self._encoded, query.filters, width, self._own, exact=query.offset is not None
            )
            names = self._read(_AT, [candidate.position for candidate in nearest])
            if len(names) < len(nearest):
                return nearest, None
            # Pages fit together where all look at the same images.
            enough = query.offset is not None or _num_persons(names) >= query.last
            if enough or len(nearest) < width:
                return nearest, names
            width *= _WIDER

    def _others(
        self, nearest: Sequence[Candidate], names: dict[int, str | None]
    ) -> tuple[list[Candidate], dict[int, str | None]]:
        """The other images of the persons whom the closest show, and their identities."""
        labels = sorted({name for name in names.values() if name is not None})
        identities = self._read(_OF, labels)
        snapshot = self._opened.snapshot
        keep = snapshot.alive & snapshot.keep(self._query.filters)
        places = [
            place
            for place in identities
            if place not in names and place != self._own and place < len(keep) and keep[place]
        ]
        if not places:
            return [], {}
        scores = snapshot.scores(self._encoded.vectors, np.array(places, np.int64)).max(axis=0).clip(-1, 1)
        found = zip(places, scores.tolist(), strict=True)
        return [Candidate(place, score, score, 0) for place, score in found], identities

    def _read(self, statement: Select[int, str | None], values: Sequence[int | str]) -> dict[int, str | None]:
        """The identity at each position; None of images that show nobody in particular."""
        found: dict[int, str | None] = {}
        with self._database.look() as connection:
            for start in range(0, len(values), _ROWS_PER_STATEMENT):
                page = {"values": values[start : start + _ROWS_PER_STATEMENT]}
                known = {"gallery": self._gallery_id, "generation": self._opened.generation}
                rows = connection.execute(statement, known | page)
                found.update((place, None if name == DISTRACTOR else name) for place, name in rows)
        return found


def _num_persons(names: dict[int, str | None]) -> int:
    alone = sum(name is None for name in names.values())
    return alone + len(set(names.values()) - {None})


def _looked_at(nearest: Sequence[Candidate], names: dict[int, str | None], query: Query) -> list[Candidate]:
    """The closest images, and of each further person the closest one until these are enough: for a re-ranking."""
    first, seen = list(nearest[: query.width]), {names[candidate.position] for candidate in nearest[: query.width]}
    count = _num_persons({candidate.position: names[candidate.position] for candidate in first})
    for candidate in nearest[query.width :]:
        name = names[candidate.position]
        if count < query.last and (name is None or name not in seen):
            first.append(candidate)
            seen.add(name)
            count += 1
    return first


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    """All candidates by their cosine, equal ones by position, ranked among each other."""
    ranked = sorted(candidates, key=lambda candidate: (-candidate.retrieval_score, candidate.position))
    return [replace(candidate, retrieval_rank=rank) for rank, candidate in enumerate(ranked, 1)]


def _grouped(candidates: Sequence[Candidate], names: dict[int, str | None], *, mean: bool) -> list[Person]:
    """The persons of `candidates`, which come best first; equal scores keep the order of their best images."""
    of_person: dict[str | int, list[Candidate]] = {}
    for candidate in candidates:
        name = names[candidate.position]
        of_person.setdefault(candidate.position if name is None else name, []).append(candidate)
    persons = [
        Person(
            key if isinstance(key, str) else None,
            float(np.mean([one.score for one in images])) if mean else images[0].score,
            tuple(images),
        )
        for key, images in of_person.items()
    ]
    return sorted(persons, key=lambda person: -person.score)
