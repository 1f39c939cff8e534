"""The bodies and answers of the routes of feedback."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from service.db.tables import Feedback
from service.schemas import Answer, Body, Name, Reference, SelfLink, Time, example


class FeedbackBody(Body):
    """A result that is confirmed or rejected, by the image that was asked by or by the search."""

    query_image: Reference | None = Field(default=None, description="the gallery's image that was asked by")
    search_id: Reference | None = Field(
        default=None, description="in its place a search by such an image, with explain, while its record is kept"
    )
    image: Reference = Field(description="the result, an image of the gallery")
    same: bool = Field(description="true where both show the same person")

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if (self.query_image is None) == (self.search_id is None):
            raise ValueError("give query_image or search_id, one of the two")
        return self


class ExportBody(Body):
    """A new data set of the images that feedback is about."""

    name: Name = Field(description="unique; taken wherever the id is")


class FeedbackLinks(SelfLink):
    """Links of a pair."""

    images: list[str]


class FeedbackAnswer(Answer):
    """A pair of images, and whether they show the same person."""

    model_config = example(
        id="fb_01jb2c3d4e5f6g7h8j9k0m1n2p",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        images=["img_01jb2c3d4e5f6g7h8j9k0m1n2p", "img_01jb2c3d4e5f6g7h8j9k0m1n2q"],
        same=True,
        key="key_01jb2c3d4e5f6g7h8j9k0m1n2p",
        created_at="2026-01-31T12:00:00Z",
        links={
            "self": "/galleries/gal_01…/feedback/fb_01…",
            "images": ["/galleries/gal_01…/images/img_01…", "/galleries/gal_01…/images/img_01…"],
        },
    )

    id: str
    gallery: str
    images: list[str]
    same: bool
    key: str | None = Field(description="the API key by which it was said last")
    created_at: Time = Field(description="when it was said last")
    links: FeedbackLinks

    @classmethod
    def of(cls, pair: Feedback, prefix: str = "") -> FeedbackAnswer:
        """The pair as clients see it; `prefix` is put before links."""
        gallery, images = f"{prefix}/galleries/{pair.gallery_id}", [pair.first_image_id, pair.second_image_id]
        return cls(
            id=pair.id,
            gallery=pair.gallery_id,
            images=images,
            same=pair.same,
            key=pair.key_id,
            created_at=pair.created_at,
            links=FeedbackLinks(
                self=f"{gallery}/feedback/{pair.id}", images=[f"{gallery}/images/{image}" for image in images]
            ),
        )
