"""What a search may ask."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from reid_core.retrieval.snapshot import Filters
from service.bodies import Body, Instant, Reference

CameraName = Annotated[str, StringConstraints(max_length=200)]


class Options(Body):
    """What to give back."""

    pointer: ClassVar[str] = ""
    """Where these stand in the request, for pointers to a wrong one: `/query`, or empty for the body."""

    top_k: int = Field(default=10, ge=1, description="most results; REID_MAX_TOP_K at most")
    rerank: Literal["none", "qaconv", "k_reciprocal"] = "none"
    candidates: int = Field(default=100, ge=1, description="how many a re-ranking looks at")
    camera: list[CameraName] = Field(
        default_factory=list, description="only these cameras; empty text: pictures without a camera"
    )
    exclude_camera: list[CameraName] = Field(default_factory=list, description="none of these cameras")
    captured_after: Instant | None = Field(default=None, description="taken then or later")
    captured_before: Instant | None = Field(default=None, description="taken before then")
    min_score: float | None = Field(default=None, description="no results with a lower score")
    explain: bool = False

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
