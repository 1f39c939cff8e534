"""The outcome of a search, and how clients see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.galleries.image_schemas import content_link, image_link
from service.search.explanations.pairs import Explanation
from service.search.judging import Judgement
from service.search.persons import Person
from service.search.rows import FoundImage
from service.search.schemas import Correspondence, GroupAnswer, MatchAnswer, MatchLinks, SearchAnswer


@dataclass(frozen=True, slots=True)
class Match:
    """An image that was found. `score` ranks, larger is better; the other two are of retrieval alone."""

    image: FoundImage
    score: float
    retrieval_score: float
    retrieval_rank: int
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The matches, best first, and what they were found with; `drawable` while their explanations can be drawn.

    `offset` is the number of results before the first. Of a search by person, `persons` are those of the answer and
    `matches` are their images, one person's after the other's.
    """

    search_id: str
    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    timings_ms: dict[str, float]
    matches: tuple[Match, ...]
    offset: int = 0
    persons: tuple[Person, ...] | None = None
    drawable: bool = False
    judgement: Judgement | None = None

    def answer(self, prefix: str = "") -> SearchAnswer:
        """The outcome as clients see it; `prefix` is put before links."""
        return SearchAnswer(
            search_id=self.search_id,
            gallery=self.gallery,
            revision=self.revision,
            model=self.model,
            reranker=self.reranker,
            rerank=self.rerank,
            verdict=self.judgement.verdict if self.judgement else None,
            prior=self.judgement.prior if self.judgement else None,
            threshold=self.judgement.threshold if self.judgement else None,
            warning=self.judgement.warning if self.judgement else None,
            timings_ms=self.timings_ms,
            results=[] if self.persons is not None else self._results(prefix),
            groups=None if self.persons is None else self._groups(self.persons, prefix),
        )

    def _results(self, prefix: str) -> list[MatchAnswer]:
        probabilities = self.judgement.probabilities if self.judgement else [None] * len(self.matches)
        told = zip(self.matches, probabilities, strict=True)
        return [
            self._match_answer(place, self.offset + place, match, chance, prefix)
            for place, (match, chance) in enumerate(told, 1)
        ]

    def _groups(self, persons: Sequence[Person], prefix: str) -> list[GroupAnswer]:
        probabilities = self.judgement.probabilities if self.judgement else ()
        groups, place = [], 0
        for number, person in enumerate(persons):
            results = []
            for match in self.matches[place : place + len(person.candidates)]:
                place += 1
                results.append(self._match_answer(place, place, match, None, prefix))
            groups.append(
                GroupAnswer(
                    rank=self.offset + number + 1,
                    identity=person.identity,
                    score=person.score,
                    probability=probabilities[number] if probabilities else None,
                    results=results,
                )
            )
        return groups

    def _match_answer(self, place: int, rank: int, match: Match, probability: float | None, prefix: str) -> MatchAnswer:
        image, explanation = match.image, match.explanation
        drawing = f"{prefix}/search/{self.search_id}/results/{place}/explanation.png" if self.drawable else None
        return MatchAnswer(
            rank=rank,
            image_id=image.id,
            score=match.score,
            probability=probability,
            retrieval_score=match.retrieval_score,
            retrieval_rank=match.retrieval_rank,
            identity=image.identity,
            camera=image.camera,
            captured_at=image.captured_at,
            external_id=image.external_id,
            query_picture=explanation.image + 1 if explanation else None,
            correspondences=_correspondences(explanation) if explanation else None,
            links=MatchLinks(self=image_link(image, prefix), image=content_link(image, prefix), explanation=drawing),
        )


def _correspondences(explanation: Explanation) -> list[Correspondence]:
    return [
        Correspondence(query=pair.query, match=pair.match, similarity=pair.similarity) for pair in explanation.pairs
    ]
