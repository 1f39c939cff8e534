"""The outcome of a search, and how clients see it."""

from __future__ import annotations

from dataclasses import dataclass

from service.galleries.image_schemas import content_link, image_link
from service.search.explanations.pairs import Explanation
from service.search.judging import Judgement
from service.search.rows import FoundImage
from service.search.schemas import Correspondence, MatchAnswer, MatchLinks, SearchAnswer


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
    """The matches, best first, and what they were found with; `drawable` while their explanations can be drawn."""

    search_id: str
    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    timings_ms: dict[str, float]
    matches: tuple[Match, ...]
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
            results=[self._match_answer(rank, match, prefix) for rank, match in enumerate(self.matches, 1)],
        )

    def _match_answer(self, rank: int, match: Match, prefix: str) -> MatchAnswer:
        image, explanation = match.image, match.explanation
        drawing = f"{prefix}/search/{self.search_id}/results/{rank}/explanation.png" if self.drawable else None
        return MatchAnswer(
            rank=rank,
            image_id=image.id,
            score=match.score,
            probability=self.judgement.probabilities[rank - 1] if self.judgement else None,
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
