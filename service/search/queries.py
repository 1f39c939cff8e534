"""What a search may ask."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from reid_core.errors import Fault
from reid_core.retrieval.filters import Filters
from service.bodies import Body, CaptureTime, LabelFilter, Reference
from service.db.tables import Gallery
from service.errors import Problem
from service.settings import Settings


class Options(Body):
    """What to give back."""

    pointer: ClassVar[str] = ""
    """Where these stand in the request, for pointers to a wrong one: `/query`, or empty for the body."""

    top_k: int = Field(default=10, ge=1, description="most results; REID_MAX_TOP_K at most")
    rerank: Literal["none", "qaconv", "k_reciprocal"] = "none"
    candidates: int = Field(default=100, ge=1, description="how many a re-ranking looks at; top_k where that is more")
    camera: list[LabelFilter] = Field(
        default_factory=list, description="only these cameras; empty text: pictures without a camera"
    )
    exclude_camera: list[LabelFilter] = Field(default_factory=list, description="none of these cameras")
    captured_after: CaptureTime | None = Field(default=None, description="taken then or later")
    captured_before: CaptureTime | None = Field(default=None, description="taken before then")
    min_score: float | None = Field(default=None, description="no results with a lower score, by `rerank` where given")
    explain: bool = Field(
        default=False, description="say which places of the two pictures match; can be drawn for a while"
    )

    @model_validator(mode="after")
    def _times_in_order(self) -> Options:
        if self.captured_after and self.captured_before and self.captured_after >= self.captured_before:
            raise ValueError("captured_after must be earlier than captured_before")
        return self

    @property
    def filters(self) -> Filters:
        return Filters(
            cameras=tuple(self.camera),
            exclude_cameras=tuple(self.exclude_camera),
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )

    @property
    def needs_maps(self) -> bool:
        return self.rerank == "qaconv" or self.explain

    @property
    def width(self) -> int:
        """How many of the closest pictures are looked at before the cut to `top_k`."""
        return self.top_k if self.rerank == "none" else max(self.top_k, self.candidates)


class StoredQuery(Options):
    """Search by a picture of a gallery or a data set."""

    pointer: ClassVar[str] = "/query"

    gallery: Reference
    image_id: Reference
    exclude_self: bool = Field(default=False, description="leave the picture itself out")


class PictureParameters(Options):
    """What may stand in the address of a search whose body holds pictures or an embedding."""

    gallery: Reference | None = None
    fusion: Literal["mean", "max"] = Field(
        default="mean", description="of several pictures: mean embedding, or best score"
    )


class PictureQuery(PictureParameters):
    """Search by uploaded pictures of one person."""

    gallery: Reference


class EmbeddingQuery(PictureQuery):
    """Search by an embedding that the gallery's model made."""

    embedding: list[float] = Field(min_length=1, max_length=100_000)


Query = StoredQuery | PictureQuery | EmbeddingQuery


def refuse_impossible(query: Query, gallery: Gallery, settings: Settings) -> None:
    """Raises 422 for limits that are exceeded, and for what this gallery or an embedding cannot answer."""
    for name in ("top_k", "candidates"):
        value: int = getattr(query, name)
        if value > settings.max_top_k:
            message = f"{name} is {value}, at most {settings.max_top_k} are allowed"
            raise impossible(query, name, "too-large", message, hint="ask for less, or raise REID_MAX_TOP_K")
    if not query.needs_maps:
        return
    name, otherwise = ("rerank", "rerank=k_reciprocal") if query.rerank == "qaconv" else ("explain", "no explain")
    if gallery.reranker_id is None:
        message = f"gallery {gallery.name!r} keeps no local features, so nothing can be matched place by place"
        hint = f"search a gallery that was made with a QAConv model as `model` or `reranker`, or ask with {otherwise}"
        raise impossible(query, name, "no-reranker", message, hint=hint)
    if isinstance(query, EmbeddingQuery):
        message = "an embedding has no local features to match place by place"
        raise impossible(query, name, "needs-picture", message, hint=f"send the picture, or ask with {otherwise}")


def impossible(query: Query, name: str, code: str, message: str, *, hint: str) -> Problem:
    """The 422 problem of the query's field `name`."""
    return Problem("invalid-request", message, hint=hint, errors=[Fault(f"{query.pointer}/{name}", code, message)])
