"""Many queries in one request, and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from service.schemas import Answer, Body, Omittable, ProblemAnswer, Reference, example
from service.search.schemas import (
    EmbeddingQuery,
    ImageQuery,
    MatchAnswer,
    Options,
    Query,
    SearchWarning,
    StoredQuery,
    Verdict,
)

if TYPE_CHECKING:  # brings PyTorch
    from service.search.answer import SearchOutcome


_COMMON = frozenset(
    {"gallery", "queries", "top_k", "rerank", "candidates", "camera", "exclude_camera", "captured_after"}
    | {"captured_before", "min_score", "min_probability", "far", "explain"}
)
"""The options that a batch carries out; others of a search are refused, not ignored."""


class BatchItem(Body):
    """One query of a batch: a stored image, or an embedding that the gallery's model made."""

    image_id: Reference | None = Field(default=None, description="an image of a gallery or a data set")
    exclude_self: bool = Field(default=False, description="leave the image itself out")
    embedding: list[float] | None = Field(default=None, min_length=1, max_length=100_000)

    @model_validator(mode="after")
    def _one_of_both(self) -> BatchItem:
        if (self.image_id is None) == (self.embedding is None):
            raise ValueError("a query has an `image_id` or an `embedding`, one of the two")
        return self


class BatchOptions(Options):
    """The options that all queries of a batch share."""

    gallery: Reference
    explain: Literal[False] = Field(default=False, description="a batch explains nothing; search for the one alone")

    @model_validator(mode="after")
    def _refuse_others(self) -> BatchOptions:
        if others := sorted(self.model_fields_set - _COMMON):
            raise ValueError(f"a batch takes no {others[0]}; search for that alone")
        return self

    @property
    def common(self) -> ImageQuery:
        """A query of the batch, without whom it asks for."""
        return ImageQuery(**self._values)

    @property
    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in BatchOptions.model_fields if name in _COMMON}


class BatchBody(BatchOptions):
    """Many queries; REID_MAX_BATCH_QUERIES at most."""

    queries: list[BatchItem] = Field(min_length=1)

    def each(self) -> list[Query]:
        """The queries as searches of their own."""
        return [self._query(item) for item in self.queries]

    def _query(self, item: BatchItem) -> Query:
        if item.embedding is not None:
            return EmbeddingQuery(**self._values, embedding=item.embedding)
        return _StoredQuery(**self._values, image_id=item.image_id or "", exclude_self=item.exclude_self)


class ImageBatch(BatchOptions):
    """Uploaded images, each of which is a query."""


class _StoredQuery(StoredQuery):
    pointer: ClassVar[str] = ""


class BatchItemAnswer(Answer):
    """The answer to one query: its results as of a search, or its problem."""

    search_id: Omittable[str] = None
    verdict: Omittable[Verdict] = None
    prior: Omittable[float] = None
    threshold: Omittable[float] = None
    warning: Omittable[SearchWarning] = None
    results: Omittable[list[MatchAnswer]] = None
    problem: Omittable[ProblemAnswer] = Field(default=None, description="why this query has no results")

    @classmethod
    def of(cls, outcome: SearchOutcome, prefix: str) -> BatchItemAnswer:
        """The outcome as clients see it; `prefix` is put before links."""
        answer = outcome.answer(prefix)
        return cls(**{name: getattr(answer, name) for name in cls.model_fields if name != "problem"})


class BatchAnswer(Answer):
    """The answers to a batch, in the order of its queries, all of one revision of the gallery."""

    model_config = example(
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        revision=7,
        model="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        reranker=None,
        rerank="none",
        timings_ms={"decode": 0.0, "embed": 0.0, "retrieve": 20.4, "rerank": 0.0, "total": 31.7},
        items=[{"search_id": "search_01jb2c3d4e5f6g7h8j9k0m1n2p", "results": []}],
    )

    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    timings_ms: dict[str, float] = Field(description="of all queries together")
    items: list[BatchItemAnswer]
