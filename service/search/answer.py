"""What a search gives back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service.clock import rfc3339
from service.db.tables import GalleryImage

STAGES = ("decode", "embed", "retrieve", "rerank")


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found. `score` ranks, larger is better; the other two are of retrieval alone."""

    image: GalleryImage
    score: float
    retrieval_score: float
    retrieval_rank: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, best first, and what they were found with."""

    search_id: str
    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    timings_ms: dict[str, float]
    hits: tuple[Hit, ...]

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
            "results": [_hit_as_json(rank, hit, prefix) for rank, hit in enumerate(self.hits, 1)],
        }


class Stopwatch:
    """The time that each stage of a search took, from when this is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what happens inside as the time of that stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def timings_ms(self) -> dict[str, float]:
        seconds = {**self._seconds, "total": time.perf_counter() - self._start}
        return {name: round(1000 * value, 3) for name, value in seconds.items()}


def _hit_as_json(rank: int, hit: Hit, prefix: str) -> dict[str, Any]:
    image = hit.image
    here = f"{prefix}/galleries/{image.gallery_id}/images/{image.id}"
    has_file = image.file is not None or image.dataset_image_id is not None
    return {
        "rank": rank,
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
