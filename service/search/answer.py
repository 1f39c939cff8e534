"""What a search gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.clock import rfc3339
from service.db.tables import GalleryImage
from service.search.explain import Explanation


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found. `score` ranks, larger is better; the other two are of retrieval alone."""

    image: GalleryImage
    score: float
    retrieval_score: float
    retrieval_rank: int
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, best first, and what they were found with; `drawable` while their explanations can be drawn."""

    search_id: str
    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    timings_ms: dict[str, float]
    hits: tuple[Hit, ...]
    drawable: bool = False

    def as_json(self, prefix: str = "") -> dict[str, Any]:
        """As the contract has it; `prefix` is put before links."""
        return {
            "search_id": self.search_id,
            "gallery": self.gallery,
            "revision": self.revision,
            "model": self.model,
            "reranker": self.reranker,
            "rerank": self.rerank,
            "timings_ms": self.timings_ms,
            "results": [self._result(rank, hit, prefix) for rank, hit in enumerate(self.hits, 1)],
        }

    def _result(self, rank: int, hit: Hit, prefix: str) -> dict[str, Any]:
        shown = {"rank": rank, **_hit_as_json(hit, prefix)}
        if hit.explanation is not None:
            shown["query_picture"] = hit.explanation.picture + 1
            shown["correspondences"] = [pair.as_json() for pair in hit.explanation.pairs]
        if self.drawable:
            shown["links"]["explanation"] = f"{prefix}/search/{self.search_id}/results/{rank}/explanation.png"
        return shown


def _hit_as_json(hit: Hit, prefix: str) -> dict[str, Any]:
    image = hit.image
    here = f"{prefix}/galleries/{image.gallery_id}/images/{image.id}"
    has_file = image.file is not None or image.dataset_image_id is not None
    return {
        "image_id": image.id,
        "score": hit.score,
        "retrieval_score": hit.retrieval_score,
        "retrieval_rank": hit.retrieval_rank,
        "identity": image.identity,
        "camera": image.camera,
        "captured_at": rfc3339(image.captured_at) if image.captured_at else None,
        "external_id": image.external_id,
        "links": {"self": here, "image": f"{here}/content" if has_file else None},
    }
