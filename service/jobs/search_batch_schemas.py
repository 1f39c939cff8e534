"""The bodies of `search_batch` jobs: by whom is searched, and how."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from reid_core.retrieval.filters import Filters
from service.jobs.webhook_schemas import Notified, WebhookBody
from service.schemas import Body, CaptureTime, LabelFilter, Reference


class SplitQueries(Body):
    """The images of a data set's split, embedded by the gallery's model."""

    dataset: Reference
    split: Literal["train", "query", "gallery"]


class GalleryQueries(Body):
    """The images of a gallery, which may be the one that is searched."""

    gallery: Reference


class SearchBatchOptions(Body):
    """The options that all queries of the job have in common."""

    top_k: int = Field(default=10, ge=1, description="most results of a query; REID_MAX_TOP_K at most")
    rerank: Literal["none", "k_reciprocal"] = "none"
    candidates: int = Field(default=100, ge=1, description="how many a re-ranking looks at; top_k where that is more")
    camera: list[LabelFilter] = Field(default_factory=list, description="only these cameras; empty text: without one")
    exclude_camera: list[LabelFilter] = Field(default_factory=list, description="none of these cameras")
    captured_after: CaptureTime | None = Field(default=None, description="taken then or later")
    captured_before: CaptureTime | None = Field(default=None, description="taken before then")
    min_score: float | None = Field(default=None, description="no results with a lower score")
    exclude_self: bool = Field(default=False, description="leave the image asked by out")
    format: Literal["jsonl", "parquet"] = Field(default="jsonl", description="of the results")

    @model_validator(mode="after")
    def _times_in_order(self) -> SearchBatchOptions:
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
    def width(self) -> int:
        """The number of closest images that are looked at before the cut to `top_k`."""
        return self.top_k if self.rerank == "none" else max(self.top_k, self.candidates)


def _read_json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("not-json", "in a form a webhook is JSON: an object with url and secret") from error


class UploadedBatch(SearchBatchOptions):
    """The fields of a form that brings its queries in a file."""

    gallery: Reference
    webhook: Annotated[WebhookBody | None, BeforeValidator(_read_json)] = Field(
        default=None, description="as JSON; is sent the job's end, signed"
    )


class SearchBatchBody(Notified, SearchBatchOptions):
    """Search a gallery by the images of a data set's split or of a gallery. Queries of a file:
    POST /search/batch/jobs."""

    kind: Literal["search_batch"]
    gallery: Reference
    queries: SplitQueries | GalleryQueries
