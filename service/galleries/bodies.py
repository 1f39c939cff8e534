"""What the gallery routes take."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reid_core.data.records import Split
from service.bodies import Body, CaptureTime, Key, Label, Name, Reference


class DatasetSplit(Body):
    """One split of a data set, by its id or name."""

    id: Reference
    split: Split


class GalleryBody(Body):
    """A new gallery. With `dataset` a job adds that split's pictures to it."""

    name: Name
    model: Reference
    reranker: Reference | None = Field(
        default=None, description="a model that matches locally; left out, `model` itself where it does"
    )
    maps: Literal["float16", "int8", "none"] | None = Field(
        default=None,
        description="how the re-ranker's local features are kept: float16 if left out; int8 takes half, rounded",
    )
    index: Literal["auto", "flat", "hnsw", "ivfpq"] = Field(
        default="auto", description="auto: exact for as long as that is quick"
    )
    dataset: DatasetSplit | None = None
    retention_days: int | None = Field(default=None, ge=1, le=36_500, description="pictures older than this are erased")
    keep_images: bool = Field(
        default=True, description="keep uploaded pictures, to show them and to embed them again when rebuilding"
    )


class SplitBody(Body):
    """A whole split to be added by a job."""

    dataset: Reference
    split: Split


class IdentityBody(Body):
    """A person, by the label that the pictures have."""

    identity: Label


class PictureDetails(Body):
    """What is known of an uploaded picture."""

    camera: Label | None = None
    captured_at: CaptureTime | None = None
    identity: Label | None = None
    external_id: Key | None = None
