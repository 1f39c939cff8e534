"""The bodies and answers of the routes of a gallery's identities."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from pydantic import Field

from service.galleries.identities import Identity, Renaming
from service.galleries.image_schemas import content_link, image_link
from service.schemas import Answer, Body, ContentLinks, Label, LabelFilter, SelfLink, Time, example


class NewIdentity(Body):
    """Another label of a person."""

    identity: Label


class RenameBody(Body):
    """A person, by the label that the images have, and the label that they get."""

    identity: LabelFilter
    new_identity: Label


class CoverImage(Answer):
    """The image that stands for a person: the largest whose file is there."""

    image: str
    links: ContentLinks


class IdentityLinks(SelfLink):
    """Links of a person."""

    images: str


class IdentityAnswer(Answer):
    """A person of a gallery: all images of one label."""

    model_config = example(
        identity="anna",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        images=12,
        cameras=["door", "hall"],
        first_seen="2026-01-31T12:00:00Z",
        last_seen="2026-02-02T08:30:00Z",
        cover={
            "image": "img_01jb2c3d4e5f6g7h8j9k0m1n2p",
            "links": {"self": "/galleries/gal_01…/images/img_01…", "content": None},
        },
        links={
            "self": "/galleries/gal_01…/identities/anna",
            "images": "/galleries/gal_01…/images?identity=anna",
        },
    )

    identity: str
    gallery: str
    images: int
    cameras: list[str]
    first_seen: Time | None = Field(description="the earliest `captured_at`; null where no image has one")
    last_seen: Time | None = Field(description="the latest `captured_at`; null where no image has one")
    cover: CoverImage
    links: IdentityLinks

    @classmethod
    def of(cls, person: Identity, prefix: str = "") -> IdentityAnswer:
        """The person as clients see it; `prefix` is put before links."""
        gallery_id = person.cover.gallery_id
        gallery = f"{prefix}/galleries/{gallery_id}"
        links = ContentLinks(self=image_link(person.cover, prefix), content=content_link(person.cover, prefix))
        return cls(
            identity=person.label,
            gallery=gallery_id,
            images=person.images,
            cameras=list(person.cameras),
            first_seen=person.first_seen,
            last_seen=person.last_seen,
            cover=CoverImage(image=person.cover.id, links=links),
            links=IdentityLinks(
                self=f"{gallery}/identities/{quote(person.label)}",
                images=f"{gallery}/images?{urlencode({'identity': person.label})}",
            ),
        )


class RenameAnswer(Answer):
    """The outcome of a renaming."""

    identity: str = Field(description="the new label")
    gallery: str
    revision: int
    renamed_images: int = Field(description="images that had the old label")
    images: int = Field(description="images that have the new label now")
    merged: bool = Field(description="true where the gallery had the new label already")

    @classmethod
    def of(cls, label: str, renaming: Renaming) -> RenameAnswer:
        """The outcome as clients see it."""
        return cls(
            identity=label,
            gallery=renaming.gallery_id,
            revision=renaming.revision,
            renamed_images=renaming.renamed,
            images=renaming.images,
            merged=renaming.merged,
        )
